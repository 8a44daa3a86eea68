"""Bring the tables of one service up to its newest step. Several processes may do so at once: one of them does.

Each service has a version line of its own: a folder of steps, and a table that says which of them the database has. So
services share a database without knowing of each other.
"""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text

from membridge.wiring.service import Migrations

#: An arbitrary number that PostgreSQL's advisory lock is known by.
LOCK = 0x6D656D62
_ENVIRONMENT = Path(__file__).parent / "migrations"


def upgrade(connection: Connection, migrations: Migrations) -> None:
    """Run the steps that are missing, in the transaction of `connection`."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
    else:
        # SQLite's driver would begin at the first row that is written, after tables are made.
        connection.execute(text("BEGIN IMMEDIATE"))
    config = Config()
    config.set_main_option("script_location", _escaped(_ENVIRONMENT))
    config.set_main_option("version_locations", _escaped(migrations.folder))
    config.set_main_option("path_separator", "newline")
    config.attributes["connection"] = connection
    config.attributes["version_table"] = migrations.version_table or f"alembic_version_{migrations.service}"
    command.upgrade(config, "head")


def _escaped(path: Path) -> str:
    """Return a path as a configuration file has it, where `%` begins a reference."""
    return str(path).replace("%", "%%")
