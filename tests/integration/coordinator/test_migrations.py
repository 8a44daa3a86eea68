"""The migrations make the tables that the code names, on both databases, and a second run changes nothing."""

from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection

from membridge.aio.deadline import Deadline
from services.database.engine import open_engine, parse_url
from services.database.tables import metadata


def differences(connection: Connection) -> list[object]:
    """Return what the database has otherwise than `tables`: columns, types, indexes, constraints."""
    # SQLite keeps no lengths: a migration that widens a column has nothing to do there.
    lengths = connection.dialect.name != "sqlite"
    context = MigrationContext.configure(connection, opts={"compare_type": lengths, "compare_server_default": True})
    return list(compare_metadata(context, metadata))


async def test_the_migrations_make_the_tables_that_the_code_names(database_url: str, tmp_path: Path) -> None:
    for _ in range(2):
        async with (
            open_engine(parse_url(database_url, tmp_path / "unused"), deadline=Deadline.after(30.0)) as engine,
            engine.connect() as connection,
        ):
            assert await connection.run_sync(differences) == []
