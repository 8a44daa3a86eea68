"""The group commit on each database: rejected rows, overload, failed commits and the fence."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import select

from membridge.aio.deadline import Deadline
from membridge.errors import MembridgeError, OverloadedError, UnavailableError
from services.coordinator.store.epoch import begin_tenure, group_commit_of
from services.coordinator.store.migrations import MIGRATIONS
from services.coordinator.store.statements import INSERT_LEASE, UPDATE_LEASE
from services.coordinator.store.tables import leases
from services.database.engine import Engine, open_engine, parse_url
from services.database.group_commit import PENDING, GroupCommit, UnstorableError, durable
from services.database.statements import Value, Write
from tests.integration.coordinator.gates import Commit, failing, held


def lease(name: str, ttl: Value = 1) -> Write:
    row: dict[str, Value] = dict.fromkeys(("task_id", "worker_id", "context_id", "status"), "x")
    row |= dict.fromkeys(("started_at", "expires_at", "last_heartbeat"), "t")
    return Write(INSERT_LEASE, {**row, "id": name, "ttl_seconds": ttl})


def ended(name: str) -> Write:
    return Write(UPDATE_LEASE, {"b_id": name, "b_status": "ended", "b_expires_at": "t", "b_last_heartbeat": "t"})


async def stored(engine: Engine) -> dict[str, str]:
    async with engine.connect() as connection:
        rows = await connection.execute(select(leases.c.id, leases.c.status))
        return {str(row.id): str(row.status) for row in rows}


@asynccontextmanager
async def group_commit_on(url: str, folder: Path) -> AsyncGenerator[tuple[Engine, GroupCommit, "asyncio.Task[str]"]]:
    """A group commit that runs, and the task of its run, which returns what ended it."""
    async with open_engine(parse_url(url, folder / "x"), MIGRATIONS, deadline=Deadline.after(30.0)) as engine:
        group_commit = group_commit_of(engine, await begin_tenure(engine))

        async def run() -> str:
            try:
                await group_commit.run(lambda: None)
            except MembridgeError as error:
                return error.message
            return "ended"

        async with asyncio.TaskGroup() as group:
            running = group.create_task(run())
            yield engine, group_commit, running
            running.cancel()


@pytest.mark.parametrize(
    "bad",
    [lease("bad", ttl=2**63), lease("bad\ud800"), lease("bad", ttl=None), lease("there")],
    ids=["too large", "half a pair", "missing", "there already"],
)
async def test_a_row_that_the_database_refuses_fails_its_caller_alone(
    database_url: str, tmp_path: Path, bad: Write
) -> None:
    async with group_commit_on(database_url, tmp_path) as (engine, group_commit, running):
        await durable(group_commit.submit([lease("there")]))
        good = [group_commit.submit([lease(f"before {number}")], key=f"{number}") for number in range(5)]
        guilty = group_commit.submit([lease("with it"), bad], key="guilty")
        good += [group_commit.submit([lease(f"after {number}")], key=f"{number}") for number in range(4)]
        with pytest.raises(UnstorableError):
            await durable(guilty)
        for one in good:
            await durable(one)
        assert set(await stored(engine)) == {
            "there", *(f"before {number}" for number in range(5)), *(f"after {number}" for number in range(4))
        }  # fmt: skip
        assert not running.done(), "the group commit goes on"


async def test_what_builds_on_a_refused_change_is_refused_until_the_task_is_read_again(
    database_url: str, tmp_path: Path
) -> None:
    async with group_commit_on(database_url, tmp_path) as (engine, group_commit, running):
        await durable(group_commit.submit([lease("mine")], key="t"))
        with held(engine) as waits:
            first = group_commit.submit([lease("other")])
            await waits.wait()
            refused = [
                group_commit.submit([lease("new", ttl=2**63)], key="t"),
                group_commit.submit([ended("mine")], key="t"),
            ]
            innocent = group_commit.submit([ended("other")], key="u")
        await durable(first)
        for one in refused:
            with pytest.raises(UnstorableError):
                await durable(one)
        with pytest.raises(UnstorableError):
            await durable(group_commit.submit([ended("mine")], key="t"))
        await durable(innocent)
        assert await stored(engine) == {"mine": "x", "other": "ended"}
        group_commit.absolve("t")
        await durable(group_commit.submit([ended("mine")], key="t"))
        assert await stored(engine) == {"mine": "ended", "other": "ended"}
        assert not running.done()


async def test_what_builds_on_a_refused_change_is_refused_also_when_the_task_is_read_again_meanwhile(
    database_url: str, tmp_path: Path
) -> None:
    async with group_commit_on(database_url, tmp_path) as (engine, group_commit, _):
        await durable(group_commit.submit([lease("mine")], key="t"))
        refused = group_commit.submit([lease("new", ttl=2**63)], key="t")
        refused.add_done_callback(lambda _: group_commit.absolve("t"))
        others = [group_commit.submit([lease(f"other {number}")]) for number in range(6)]
        builds = group_commit.submit([ended("mine")], key="t")
        for one in others:
            await durable(one)
        for one in (refused, builds):
            with pytest.raises(UnstorableError):
                await durable(one)
        assert await stored(engine) == {"mine": "x", **{f"other {number}": "x" for number in range(6)}}


@pytest.mark.parametrize("how", list(Commit))
async def test_a_commit_that_fails_ends_the_group_commit_and_is_stored_whole_or_not_at_all(
    database_url: str, tmp_path: Path, how: Commit
) -> None:
    async with group_commit_on(database_url, tmp_path) as (engine, group_commit, running):
        with failing(engine, how) as happened:
            asked = [group_commit.submit([lease("a"), lease("b")]), group_commit.submit([lease("c")])]
            for one in asked:
                with pytest.raises(UnavailableError):
                    await durable(one)
            assert "the connection was closed" in await running
        assert happened == [how]
        for refused in (group_commit.admit, lambda: group_commit.submit([lease("late")])):
            with pytest.raises(UnavailableError):
                refused()
        assert set(await stored(engine)) == ({"a", "b", "c"} if how is Commit.ANSWER_LOST else set())


async def test_what_an_old_tenure_and_a_stopped_one_still_had_is_told_to_come_again(
    database_url: str, tmp_path: Path
) -> None:
    async with group_commit_on(database_url, tmp_path) as (engine, group_commit, running):
        with held(engine) as waits:
            begun = group_commit.submit([lease("begun")])
            await waits.wait()
            waiting = group_commit.submit([lease("waiting")])
            running.cancel()
        await asyncio.wait({running})
        await durable(begun)
        with pytest.raises(UnavailableError):
            await durable(waiting)
        assert set(await stored(engine)) == {"begun"}
    async with group_commit_on(database_url, tmp_path) as (engine, group_commit, running):
        await begin_tenure(engine)
        with pytest.raises(UnavailableError, match="another coordinator"):
            await durable(group_commit.submit([lease("late")]))
        assert set(await stored(engine)) == {"begun"}


async def test_too_much_is_turned_away_before_anything_changes_and_own_changes_are_taken(
    database_url: str, tmp_path: Path
) -> None:
    async with group_commit_on(database_url, tmp_path) as (engine, group_commit, _):
        last = group_commit.submit([])
        for _ in range(PENDING - 1):
            group_commit.admit()
            last = group_commit.submit([])
        with pytest.raises(OverloadedError):
            group_commit.admit()
        own = group_commit.submit([lease("own")])
        await durable(last)
        await durable(own)
        group_commit.admit()
        assert set(await stored(engine)) == {"own"}


async def test_who_gives_up_waiting_cancels_no_change(database_url: str, tmp_path: Path) -> None:
    async with group_commit_on(database_url, tmp_path) as (engine, group_commit, _):
        with held(engine) as waits:
            done = group_commit.submit([lease("kept")])
            async with asyncio.TaskGroup() as group:
                asking = group.create_task(durable(done))
                await waits.wait()
                asking.cancel()
            assert not done.done()
        await durable(done)
        assert set(await stored(engine)) == {"kept"}
