"""The ledger on each database: what it refuses, what it turns away, and what it does not know."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from sqlalchemy import select

from membridge.aio.deadline import Deadline
from membridge.errors import MembridgeError, OverloadedError, UnavailableError
from services.database.engine import Engine, open_engine, parse_url
from services.database.group_commit import PENDING, Ledger, UnstorableError, begin_term, durable
from services.database.statements import INSERT_LEASE, UPDATE_LEASE, Value, Write
from services.database.tables import leases
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
async def ledger_on(url: str, folder: Path) -> AsyncGenerator[tuple[Engine, Ledger, "asyncio.Task[str]"]]:
    """A ledger that runs, and the task of its run: that returns what ended it."""
    async with open_engine(parse_url(url, folder / "x"), deadline=Deadline.after(30.0)) as engine:
        ledger = Ledger(engine, await begin_term(engine))

        async def run() -> str:
            try:
                await ledger.run(lambda: None)
            except MembridgeError as error:
                return error.message
            return "ended"

        async with asyncio.TaskGroup() as group:
            running = group.create_task(run())
            yield engine, ledger, running
            running.cancel()


@pytest.mark.parametrize(
    "bad",
    [lease("bad", ttl=2**63), lease("bad\ud800"), lease("bad", ttl=None), lease("there")],
    ids=["too large", "half a pair", "missing", "there already"],
)
async def test_a_row_that_the_database_refuses_fails_its_caller_alone(
    database_url: str, tmp_path: Path, bad: Write
) -> None:
    async with ledger_on(database_url, tmp_path) as (engine, ledger, running):
        await durable(ledger.submit([lease("there")]))
        good = [ledger.submit([lease(f"before {number}")], task_id=f"{number}") for number in range(5)]
        guilty = ledger.submit([lease("with it"), bad], task_id="guilty")
        good += [ledger.submit([lease(f"after {number}")], task_id=f"{number}") for number in range(4)]
        with pytest.raises(UnstorableError):
            await durable(guilty)
        for one in good:
            await durable(one)
        assert set(await stored(engine)) == {
            "there", *(f"before {number}" for number in range(5)), *(f"after {number}" for number in range(4))
        }  # fmt: skip
        assert not running.done(), "the term goes on"


async def test_what_builds_on_a_refused_change_is_refused_until_the_task_is_read_again(
    database_url: str, tmp_path: Path
) -> None:
    async with ledger_on(database_url, tmp_path) as (engine, ledger, running):
        await durable(ledger.submit([lease("mine")], task_id="t"))
        with held(engine) as waits:
            first = ledger.submit([lease("other")])
            await waits.wait()
            refused = [
                ledger.submit([lease("new", ttl=2**63)], task_id="t"),
                ledger.submit([ended("mine")], task_id="t"),
            ]
            innocent = ledger.submit([ended("other")], task_id="u")
        await durable(first)
        for one in refused:
            with pytest.raises(UnstorableError):
                await durable(one)
        with pytest.raises(UnstorableError):
            await durable(ledger.submit([ended("mine")], task_id="t"))
        await durable(innocent)
        assert await stored(engine) == {"mine": "x", "other": "ended"}
        ledger.absolve("t")
        await durable(ledger.submit([ended("mine")], task_id="t"))
        assert await stored(engine) == {"mine": "ended", "other": "ended"}
        assert not running.done()


async def test_what_builds_on_a_refused_change_is_refused_also_when_the_task_is_read_again_meanwhile(
    database_url: str, tmp_path: Path
) -> None:
    async with ledger_on(database_url, tmp_path) as (engine, ledger, _):
        await durable(ledger.submit([lease("mine")], task_id="t"))
        refused = ledger.submit([lease("new", ttl=2**63)], task_id="t")
        refused.add_done_callback(lambda _: ledger.absolve("t"))
        others = [ledger.submit([lease(f"other {number}")]) for number in range(6)]
        builds = ledger.submit([ended("mine")], task_id="t")
        for one in others:
            await durable(one)
        for one in (refused, builds):
            with pytest.raises(UnstorableError):
                await durable(one)
        assert await stored(engine) == {"mine": "x", **{f"other {number}": "x" for number in range(6)}}


@pytest.mark.parametrize("how", list(Commit))
async def test_a_commit_that_fails_ends_the_term_and_is_stored_whole_or_not_at_all(
    database_url: str, tmp_path: Path, how: Commit
) -> None:
    async with ledger_on(database_url, tmp_path) as (engine, ledger, running):
        with failing(engine, how) as happened:
            asked = [ledger.submit([lease("a"), lease("b")]), ledger.submit([lease("c")])]
            for one in asked:
                with pytest.raises(UnavailableError):
                    await durable(one)
            assert "the connection was closed" in await running
        assert happened == [how]
        for refused in (ledger.admit, lambda: ledger.submit([lease("late")])):
            with pytest.raises(UnavailableError):
                refused()
        assert set(await stored(engine)) == ({"a", "b", "c"} if how is Commit.ANSWER_LOST else set())


async def test_what_an_old_term_and_a_stopped_one_still_had_is_told_to_come_again(
    database_url: str, tmp_path: Path
) -> None:
    async with ledger_on(database_url, tmp_path) as (engine, ledger, running):
        with held(engine) as waits:
            begun = ledger.submit([lease("begun")])
            await waits.wait()
            waiting = ledger.submit([lease("waiting")])
            running.cancel()
        await asyncio.wait({running})
        await durable(begun)
        with pytest.raises(UnavailableError):
            await durable(waiting)
        assert set(await stored(engine)) == {"begun"}
    async with ledger_on(database_url, tmp_path) as (engine, ledger, running):
        await begin_term(engine)
        with pytest.raises(UnavailableError, match="another coordinator"):
            await durable(ledger.submit([lease("late")]))
        assert set(await stored(engine)) == {"begun"}


async def test_too_much_is_turned_away_before_anything_changes_and_own_changes_are_taken(
    database_url: str, tmp_path: Path
) -> None:
    async with ledger_on(database_url, tmp_path) as (engine, ledger, _):
        last = ledger.submit([])
        for _ in range(PENDING - 1):
            ledger.admit()
            last = ledger.submit([])
        with pytest.raises(OverloadedError):
            ledger.admit()
        own = ledger.submit([lease("own")])
        await durable(last)
        await durable(own)
        ledger.admit()
        assert set(await stored(engine)) == {"own"}


async def test_who_gives_up_waiting_cancels_no_change(database_url: str, tmp_path: Path) -> None:
    async with ledger_on(database_url, tmp_path) as (engine, ledger, _):
        with held(engine) as waits:
            done = ledger.submit([lease("kept")])
            async with asyncio.TaskGroup() as group:
                asking = group.create_task(durable(done))
                await waits.wait()
                asking.cancel()
            assert not done.done()
        await durable(done)
        assert set(await stored(engine)) == {"kept"}
