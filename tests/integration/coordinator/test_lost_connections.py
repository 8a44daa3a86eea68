"""Connections to PostgreSQL that its server ended, as a restart or a firewall does: the next read has another one."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy import event, text

from membridge.aio.deadline import Deadline
from services.coordinator.store.migrations import MIGRATIONS
from services.coordinator.store.queries import Queries
from services.database import engine as engines
from services.database.engine import Engine, open_engine, parse_url
from tests.fixtures.tasks import create_database

OTHERS = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE pid <> pg_backend_pid() AND datname = current_database()
"""


@asynccontextmanager
async def with_idle_connections(postgres: str, tmp_path: Path) -> AsyncGenerator[tuple[Engine, str]]:
    """Yield an engine whose pool has three connections, and the name of its database."""
    url = parse_url(create_database(postgres), tmp_path / "x")
    async with open_engine(url, MIGRATIONS, deadline=Deadline.after(30.0)) as engine:
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(3):
                await stack.enter_async_context(engine.connect())
        yield engine, url.database or ""


async def end_all(postgres: str, database: str) -> None:
    connection = await asyncpg.connect(host=postgres, user="postgres", database=database)
    await connection.execute(OTHERS)
    await connection.close()


async def test_a_read_whose_connection_is_lost_is_read_again_by_another(postgres: str, tmp_path: Path) -> None:
    async with with_idle_connections(postgres, tmp_path) as (engine, database):
        queries = Queries(engine)
        for _ in range(3):
            await end_all(postgres, database)
            async with asyncio.TaskGroup() as group:
                found = [group.create_task(queries.counts()) for _ in range(5)]
            assert [one.result() for one in found] == [{}] * 5


async def test_an_idle_connection_that_is_lost_is_replaced_before_it_is_used(
    postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "IDLE_SECONDS", 0.0)
    async with with_idle_connections(postgres, tmp_path) as (engine, database):
        await end_all(postgres, database)
        for _ in range(3):
            # A write is not repeated: it must have a connection that is one.
            async with engine.begin() as connection:
                assert (await connection.execute(text("SELECT 1"))).scalar_one() == 1


async def test_a_connection_in_use_is_not_asked_again(postgres: str, tmp_path: Path) -> None:
    async with with_idle_connections(postgres, tmp_path) as (engine, _):
        statements: list[str] = []
        asked: list[object] = []

        def executed(_: object, __: object, statement: str, *___: object) -> None:
            statements.append(statement)

        dialect = engine.dialect
        ping, dialect.do_ping = dialect.do_ping, lambda connection: asked.append(connection) or True
        event.listen(engine.sync_engine, "before_cursor_execute", executed)
        queries = Queries(engine)
        for _ in range(20):
            await queries.counts()
        dialect.do_ping = ping
        assert len(statements) == 20
        assert asked == []
