"""The migrations on both databases: what they make, databases of earlier versions, and a line for each service."""

import asyncio
import random
import sqlite3
import sys
from pathlib import Path

import asyncpg
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import URL, Connection, inspect, text

from membridge.aio.deadline import Deadline
from membridge.wiring.service import Migrations
from schemas.leases import Report
from schemas.results import Metrics, ResultStatus
from schemas.tasks import TaskSpec, TasksRequest, TaskStatus
from services.coordinator.engine.state import Limits
from services.coordinator.engine.workers import is_drained
from services.coordinator.store.migrations import MIGRATIONS
from services.coordinator.store.tables import metadata
from services.database.engine import open_engine, parse_url
from tests.integration.coordinator.histories import AcceptingPort, History

DATA = Path(__file__).parents[2] / "data"
STEP = """\
import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade():
    op.create_table("notes", sa.Column("id", sa.Integer(), primary_key=True))
"""

OPEN = """\
import asyncio, sys
from pathlib import Path
from membridge.aio.deadline import Deadline
from services.coordinator.store.migrations import MIGRATIONS
from services.database.engine import open_engine, parse_url

async def main():
    async with open_engine(parse_url(sys.argv[1], Path(sys.argv[2])), MIGRATIONS, deadline=Deadline.after(50.0)):
        pass

asyncio.run(main())
"""


def differences(connection: Connection) -> list[object]:
    """Return what the database has otherwise than `tables`: columns, types, indexes, constraints."""
    # SQLite keeps no lengths: a migration that widens a column has nothing to do there.
    lengths = connection.dialect.name != "sqlite"
    context = MigrationContext.configure(connection, opts={"compare_type": lengths, "compare_server_default": True})
    return list(compare_metadata(context, metadata))


async def made_before(database_url: str) -> str:
    """Fill an empty database with what the coordinator of version 0.1, at step 0002, wrote to it; return the URL."""
    if database_url.startswith("sqlite"):
        with sqlite3.connect(database_url.removeprefix("sqlite:///")) as connection:
            connection.executescript((DATA / "tasks-0002.sqlite.sql").read_text(encoding="utf-8"))
        connection.close()
        return database_url
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute((DATA / "tasks-0002.postgresql.sql").read_text(encoding="utf-8"))
    finally:
        await connection.close()
    return database_url


async def test_the_migrations_make_the_tables_that_the_code_names(database_url: str, tmp_path: Path) -> None:
    url = parse_url(database_url, tmp_path / "unused")
    for _ in range(2):
        async with (
            open_engine(url, MIGRATIONS, deadline=Deadline.after(30.0)) as engine,
            engine.connect() as connection,
        ):
            assert await connection.run_sync(differences) == []


async def test_a_database_that_an_earlier_version_made_continues(database_url: str, tmp_path: Path) -> None:
    url = parse_url(await made_before(database_url), tmp_path / "unused")
    async with (
        open_engine(url, MIGRATIONS, deadline=Deadline.after(30.0)) as engine,
        asyncio.TaskGroup() as group,
        asyncio.timeout(20.0),
    ):
        async with engine.connect() as connection:
            assert await connection.run_sync(differences) == []
            assert await connection.scalar(text("SELECT version_num FROM alembic_version")) == "0003"
            names = await connection.run_sync(lambda sync: inspect(sync).get_table_names())
            assert [name for name in names if "version" in name] == ["alembic_version"]
        history = History(engine, AcceptingPort(), group, random.Random(1), Limits())
        # The old lease is still in KV: it has not expired.
        (held,) = await history.queries.active_leases()
        runtime, port = await history.begin({held.id}), history.port
        tasks = {task.prompt: task for task in await history.queries.tasks(TasksRequest(limit=10))}
        done = await history.queries.result(tasks["said before the move"].id)
        assert done is not None
        assert done.metrics == Metrics(duration_ms=7, tokens_used=12)
        assert is_drained(await history.state(), "w2")
        # The same key is the same task, and the next one of the context runs when the one under the old lease is over.
        again = TaskSpec(context_id="x", agent_slug="y", prompt="another", idempotency_key="k1")
        assert (await runtime.submit(again, actor="test")).id == tasks["said before the move"].id
        await runtime.cancel(tasks["runs while the coordinator is replaced"].id, reason="", actor="test")
        await port.arrived.wait()
        (order,) = port.orders
        assert (order.task.prompt, order.lease.worker_id) == ("waits behind it", "w1")
        await runtime.report(
            Report(
                lease_id=order.lease.id,
                task_id=order.task.id,
                worker_id="w1",
                status=ResultStatus.SUCCESS,
                output="o",
                metrics=Metrics(duration_ms=1),
                session="s9",
            )
        )
        assert (await history.queries.task(order.task.id)).status is TaskStatus.COMPLETED
        await history.kill()
        # What the old version wrote has no session; what this one writes has.
        await history.begin()
        tie = (await history.state()).ties[order.task.context_id]
        assert (tie.worker_id, tie.session) == ("w1", "s9")
        await history.kill()


async def test_each_service_has_a_line_of_its_own_in_one_database(database_url: str, tmp_path: Path) -> None:
    steps = tmp_path / "100% of the steps"
    steps.mkdir()
    (steps / "0001_notes.py").write_text(STEP, encoding="utf-8")
    url = parse_url(database_url, tmp_path / "unused")
    for migrations in (MIGRATIONS, Migrations("notes", steps), MIGRATIONS):
        async with (
            open_engine(url, migrations, deadline=Deadline.after(30.0)) as engine,
            engine.connect() as connection,
        ):
            for table, step in (("alembic_version", "0003"), ("alembic_version_notes", "0001")):
                if table == "alembic_version" or migrations.service == "notes":
                    assert await connection.scalar(text(f"SELECT version_num FROM {table}")) == step


async def test_services_of_one_process_migrate_their_databases_at_once(database_url: str, tmp_path: Path) -> None:
    steps = tmp_path / "steps"
    steps.mkdir()
    (steps / "0001_notes.py").write_text(STEP, encoding="utf-8")
    own, other = parse_url(database_url, tmp_path / "unused"), parse_url("", tmp_path / "notes.db")

    async def opened(url: URL, migrations: Migrations) -> list[str]:
        async with (
            open_engine(url, migrations, deadline=Deadline.after(30.0)) as engine,
            engine.connect() as connection,
        ):
            return await connection.run_sync(lambda sync: inspect(sync).get_table_names())

    async with asyncio.TaskGroup() as group:
        tasks, notes = (
            group.create_task(opened(own, MIGRATIONS)),
            group.create_task(opened(other, Migrations("notes", steps))),
        )
    assert "tasks" in tasks.result()
    assert "notes" in notes.result()


async def test_processes_migrate_at_once_and_one_of_them_does_it(database_url: str, tmp_path: Path) -> None:
    async with asyncio.timeout(60.0):
        processes = [
            await asyncio.create_subprocess_exec(sys.executable, "-c", OPEN, database_url, str(tmp_path / "unused"))
            for _ in range(3)
        ]
        assert [await process.wait() for process in processes] == [0, 0, 0]
