"""Bring a database up to the newest step. Several processes may do so at once: one of them does."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text

#: An arbitrary number that PostgreSQL's advisory lock is known by.
LOCK = 0x6D656D62


def upgrade(connection: Connection) -> None:
    """Run the steps that are missing, in the transaction of `connection`."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
