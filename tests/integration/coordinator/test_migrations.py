"""The steps in `migrations` make the tables that `services.database.tables` declares, on each database."""

from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, insert, select, text

from membridge.deadline import Deadline
from services.database.engine import open_engine, parse_url
from services.database.tables import metadata, tasks


def _differences(connection: Connection) -> list[object]:
    # SQLite keeps no lengths.
    compare_type = connection.dialect.name != "sqlite"
    context = MigrationContext.configure(connection, opts={"compare_type": compare_type})
    return [one for one in compare_metadata(context, metadata) if "alembic_version" not in str(one)]


async def test_the_steps_make_the_declared_tables_and_hold_what_they_say(database_url: str) -> None:
    url = parse_url(database_url, Path("/nowhere"))
    row = {
        "id": "i", "context_id": "ü" * 200, "agent_slug": "ü" * 200, "prompt": "p", "context_hints": "[]",
        "timeout_sec": 1, "budget": 0, "desired_format": "text", "max_attempts": 1, "priority": 1, "labels": "[]",
        "created_at": "", "status": "queued", "updated_at": "", "not_before": 0.0, "attempts": 0, "interruptions": 0,
        "reason": "",
    }  # fmt: skip
    async with open_engine(url, deadline=Deadline.after(60.0)) as engine, engine.begin() as connection:
        assert await connection.run_sync(_differences) == []
        await connection.execute(insert(tasks), [row])
        assert await connection.scalar(select(tasks.c.context_id)) == "ü" * 200
        assert await connection.scalar(text("SELECT version_num FROM alembic_version")) == "0002"
