"""The group commit on each database: rejected rows, failed transactions, cancellation and the fence."""

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
from sqlalchemy import select, text

from membridge.aio.deadline import Deadline
from membridge.errors import UnavailableError
from services.coordinator.store.epoch import begin_tenure, group_commit_of
from services.coordinator.store.migrations import MIGRATIONS
from services.coordinator.store.statements import INSERT_LEASE, UPDATE_LEASE
from services.coordinator.store.tables import leases
from services.database import writer
from services.database.engine import Engine, open_engine, parse_url
from services.database.group_commit import GroupCommit, UnstorableError, in_halves
from services.database.statements import Value, Write
from tests.fixtures.tasks import create_database
from tests.integration.coordinator.gates import Commit, failing, held


def lease(name: str, ttl: Value = 1) -> Write:
    row: dict[str, Value] = dict.fromkeys(("task_id", "worker_id", "context_id", "status"), "x")
    row |= dict.fromkeys(("started_at", "expires_at", "last_heartbeat"), "t")
    return Write(INSERT_LEASE, {**row, "id": name, "ttl_seconds": ttl})


def ended(name: str, status: str = "ended") -> Write:
    return Write(UPDATE_LEASE, {"id": name, "status": status, "expires_at": "t", "last_heartbeat": "t"})


async def stored(engine: Engine) -> dict[str, str]:
    async with engine.connect() as connection:
        rows = await connection.execute(select(leases.c.id, leases.c.status))
        return {str(row.id): str(row.status) for row in rows}


class Batches:
    """Changes that are committed together, as a caller does it: what is stored, and what was refused."""

    def __init__(self, group_commit: GroupCommit) -> None:
        self.group_commit = group_commit
        self.stored: list[str] = []
        self.refused: list[str] = []
        self.transactions = 0

    async def commit(self, changes: dict[str, Sequence[Write]]) -> None:
        """Commit changes by name, in halves when the database rejects one."""

        async def attempt(names: Sequence[str]) -> None:
            self.transactions += 1
            writes = [write for name in names for write in changes[name]]
            await self.group_commit.commit(writes, stored=lambda: self.stored.extend(names))

        await in_halves(list(changes), attempt, lambda name, _: self.refused.append(name))


@asynccontextmanager
async def group_commit_on(url: str, folder: Path) -> AsyncGenerator[tuple[Engine, GroupCommit]]:
    async with (
        open_engine(parse_url(url, folder / "x"), MIGRATIONS, deadline=Deadline.after(30.0)) as engine,
        group_commit_of(engine, await begin_tenure(engine)) as group_commit,
    ):
        yield engine, group_commit


BAD = {
    "too large": lease("bad", ttl=2**63),
    "half a pair": lease("bad\ud800"),
    "missing": lease("bad", ttl=None),
    "there already": lease("there"),
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
async def test_a_row_that_the_database_rejects_fails_its_change_alone(
    database_url: str, tmp_path: Path, bad: Write
) -> None:
    async with group_commit_on(database_url, tmp_path) as (engine, group_commit):
        batches = Batches(group_commit)
        await batches.commit({"first": [lease("there")]})
        good = [f"before {number}" for number in range(5)], [f"after {number}" for number in range(4)]
        await batches.commit(
            {name: [lease(name)] for name in good[0]}
            | {"guilty": [lease("with it"), bad]}
            | {name: [lease(name)] for name in good[1]}
        )
        assert batches.refused == ["guilty"]
        assert batches.stored == ["first", *good[0], *good[1]], "in their order"
        assert set(await stored(engine)) == {"there", *good[0], *good[1]}
        # Halves, not one after another.
        assert batches.transactions < 10
        await batches.commit({"and on": [lease("and on")]})
        assert "and on" in await stored(engine)


async def test_each_of_several_rejected_changes_fails_alone(database_url: str, tmp_path: Path) -> None:
    async with group_commit_on(database_url, tmp_path) as (engine, group_commit):
        batches = Batches(group_commit)
        guilty = {1, 2, 7}
        await batches.commit({f"{n}": [lease(f"{n}", ttl=2**63 if n in guilty else 1)] for n in range(9)})
        assert batches.refused == ["1", "2", "7"]
        assert set(await stored(engine)) == {"0", "3", "4", "5", "6", "8"}


async def test_of_several_updates_of_a_row_the_last_counts_and_inserts_come_first(
    database_url: str, tmp_path: Path
) -> None:
    async with group_commit_on(database_url, tmp_path) as (engine, group_commit):
        batches = Batches(group_commit)
        await batches.commit({"a": [ended("mine", "first"), ended("mine")], "b": [lease("mine"), lease("other")]})
        assert await stored(engine) == {"mine": "ended", "other": "x"}


@pytest.mark.parametrize("how", list(Commit))
async def test_a_transaction_that_fails_is_stored_whole_or_not_at_all(
    database_url: str, tmp_path: Path, how: Commit
) -> None:
    async with group_commit_on(database_url, tmp_path) as (engine, group_commit):
        batches = Batches(group_commit)
        with failing(group_commit, how) as happened, pytest.raises(UnavailableError, match="the connection was closed"):
            await batches.commit({"first": [lease("a"), lease("b")], "second": [lease("c")]})
        assert happened == [how], "it is not tried again"
        assert (batches.stored, batches.refused) == ([], [])
        assert set(await stored(engine)) == ({"a", "b", "c"} if how is Commit.ANSWER_LOST else set())


async def test_a_cancellation_waits_for_the_transaction_and_what_is_durable_is_said_to_be_stored(
    database_url: str, tmp_path: Path
) -> None:
    async with group_commit_on(database_url, tmp_path) as (engine, group_commit):
        batches = Batches(group_commit)
        async with asyncio.TaskGroup() as group:
            with held(group_commit) as waits:
                committing = group.create_task(batches.commit({"begun": [lease("begun")]}))
                await waits.wait()
                committing.cancel()
                committing.cancel()
            await asyncio.wait({committing})
        assert committing.cancelled()
        assert batches.stored == ["begun"]
        assert set(await stored(engine)) == {"begun"}


async def test_an_old_tenure_is_fenced(database_url: str, tmp_path: Path) -> None:
    async with group_commit_on(database_url, tmp_path) as (engine, group_commit):
        batches = Batches(group_commit)
        await batches.commit({"in time": [lease("in time")]})
        async with group_commit_of(engine, await begin_tenure(engine)) as successor:
            with pytest.raises(UnavailableError, match="another coordinator"):
                await batches.commit({"late": [lease("late")]})
            # It holds no lock either.
            await Batches(successor).commit({"next": [lease("next")]})
        assert batches.stored == ["in time"]
        assert set(await stored(engine)) == {"in time", "next"}


async def test_a_transaction_that_fails_leaves_the_connection_as_it_was(database_url: str, tmp_path: Path) -> None:
    async with group_commit_on(database_url, tmp_path) as (engine, group_commit):
        with failing(group_commit, Commit.REFUSED), pytest.raises(UnavailableError):
            await group_commit.commit([lease("a")], stored=lambda: pytest.fail("nothing is stored"))
        # The connection itself is as good as before.
        await Batches(group_commit).commit({"b": [lease("b")]})
        assert set(await stored(engine)) == {"b"}


async def test_a_rejected_change_alone_says_what_the_database_rejects(database_url: str, tmp_path: Path) -> None:
    async with group_commit_on(database_url, tmp_path) as (_, group_commit):
        with pytest.raises(UnstorableError, match="the database rejects it: "):
            await group_commit.commit([lease("bad", ttl=None)], stored=lambda: pytest.fail("nothing is stored"))


async def test_a_connection_that_is_cut_is_unavailable_and_the_next_tenure_goes_on(
    postgres: str, tmp_path: Path
) -> None:
    async with group_commit_on(create_database(postgres), tmp_path) as (engine, group_commit):
        await Batches(group_commit).commit({"before": [lease("before")]})
        async with engine.connect() as connection:
            others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
            await connection.execute(text(f"{others} AND datname = current_database()"))
        batches = Batches(group_commit)
        with pytest.raises(UnavailableError, match="database postgresql"):
            await batches.commit({"cut": [lease("cut")]})
        assert batches.stored == []
        async with group_commit_of(engine, await begin_tenure(engine)) as successor:
            await Batches(successor).commit({"after": [lease("after")]})
        assert set(await stored(engine)) == {"before", "after"}


async def test_a_database_that_another_program_keeps_locked_is_unavailable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "BUSY_SECONDS", 0.1)
    path = tmp_path / "tasks.db"
    async with group_commit_on(f"sqlite:///{path}", tmp_path) as (engine, group_commit):
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(UnavailableError, match="database is locked"):
                await Batches(group_commit).commit({"a": [lease("a")]})
            other.execute("ROLLBACK")
        await Batches(group_commit).commit({"b": [lease("b")]})
        assert set(await stored(engine)) == {"b"}
