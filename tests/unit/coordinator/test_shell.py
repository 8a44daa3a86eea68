"""The shell over a group commit that is scripted: what is answered, taken back and refused, and what ends it."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import cast

import pytest
from msgspec.structs import replace

from membridge.errors import LeaseLostError, MembridgeError, NotFoundError, OverloadedError, UnavailableError
from schemas.leases import LeaseClaim
from schemas.tasks import Task, TaskStatus
from schemas.wire import Wire
from schemas.workers import Worker, WorkerStatus
from services.coordinator.engine.effects import Effect, Reply, ReplyTask
from services.coordinator.engine.events import Cancelled, Drained, Event, Heard, Renewed, Requeued, Stirred, Submitted
from services.coordinator.engine.state import Limits, State
from services.coordinator.shell import BATCH, PENDING, Answer, Entry, Shell
from services.coordinator.store.statements import INSERT_TASK
from services.database.group_commit import GroupCommit, UnstorableError
from services.database.statements import Write


class Commits:
    """A group commit in whose place a test decides. What it stored are the names of the rows."""

    def __init__(self) -> None:
        self.stored: list[str] = []
        self.transactions = 0
        #: How many tasks each transaction inserts.
        self.sizes: list[int] = []
        self.free = asyncio.Event()
        self.free.set()
        self.began, self.running = asyncio.Event(), False
        self.failure: MembridgeError | None = None
        self.rejects: set[str] = set()

    async def commit(self, writes: Iterable[Write], *, stored: Callable[[], None]) -> None:
        self.transactions += 1
        writes = list(writes)
        self.sizes.append(sum(write.statement is INSERT_TASK for write in writes))
        names = [str(write.row.get("id") or write.row.get("entity_id")) for write in writes]
        self.began.set()
        self.running, cancelled = True, None
        while not self.free.is_set():
            try:
                await self.free.wait()
            except asyncio.CancelledError as error:
                # As the real one: the transaction ends first.
                cancelled = error
        self.running = False
        if self.failure is not None:
            raise self.failure
        if self.rejects & {*names}:
            raise UnstorableError("the database rejects it")
        self.stored += names
        stored()
        if cancelled is not None:
            raise cancelled


class Stage:
    """A shell that runs, and what it carried out."""

    def __init__(self) -> None:
        self.state = State(Limits(), b"s" * 32)
        self.commits = Commits()
        self.carried: list[Effect] = []
        self.shell = Shell(self.state, cast("GroupCommit", self.commits), look_ups=self, carry=self.carry)
        self.ended: BaseException | None = None
        self.running: asyncio.Task[None] | None = None

    def wanted(self, batch: Sequence[Entry]) -> bool:
        """Nothing is to be looked up, unless a test says so."""
        del batch
        return False

    async def fill_in(self, batch: Sequence[Entry]) -> Sequence[Entry]:
        return batch

    def carry(self, effect: Effect | None, answer: Answer | None) -> None:
        if effect is not None:
            self.carried.append(effect)
        if isinstance(effect, Reply) and answer is not None and not answer.done():
            answer.set_result(effect.value)

    async def run(self) -> None:
        try:
            await self.shell.run()
        except (MembridgeError, asyncio.CancelledError) as error:
            self.ended = error


@asynccontextmanager
async def stage() -> AsyncGenerator[Stage]:
    made = Stage()
    async with asyncio.timeout(20.0), asyncio.TaskGroup() as group:
        made.running = group.create_task(made.run())
        try:
            yield made
        finally:
            made.commits.free.set()
            made.running.cancel()


def submitted(name: str) -> Submitted:
    task = Task(
        id=name, context_id=name, agent_slug="a", prompt="p", status=TaskStatus.QUEUED, created_at="1", updated_at="1"
    )
    return Submitted(task=task, not_before=0.0, actor="test")


def heard(name: str) -> Heard:
    return Heard(Worker(id=name, node_id=name, status=WorkerStatus.ONLINE))


async def answer_of(answer: Answer) -> Wire | MembridgeError:
    try:
        return cast("Wire", await answer)
    except MembridgeError as error:
        return error


async def test_events_that_wait_together_are_one_transaction_and_are_answered_once_it_is_durable() -> None:
    async with stage() as made:
        made.commits.free.clear()
        answers = [made.shell.ask(submitted(f"{number}")) for number in range(9)]
        await made.commits.began.wait()
        assert not any(answer.done() for answer in answers)
        assert made.carried == []
        made.commits.free.set()
        assert [cast("Task", await answer).id for answer in answers] == [f"{number}" for number in range(9)]
        assert made.commits.sizes == [9]
        assert {*(await made.shell.settled()).tasks} == {f"{number}" for number in range(9)}


async def test_a_key_is_known_within_the_transaction_that_stores_it_and_read_from_the_database_after_it() -> None:
    def keyed(name: str) -> Submitted:
        event = submitted(name)
        return replace(event, task=replace(event.task, idempotency_key="k"), known=None)

    async with stage() as made:
        answer = made.shell.ask(keyed("a"))
        made.shell.post(keyed("b"))
        await answer
        assert ReplyTask("a") in made.carried
        assert {*(await made.shell.settled()).tasks} == {"a"}
        assert made.state.fresh_keys == {}


async def test_a_transaction_has_a_bound_and_the_rest_follows() -> None:
    async with stage() as made:
        answers = [made.shell.ask(submitted(f"{number}")) for number in range(BATCH + 5)]
        for answer in answers:
            await answer
        assert made.commits.sizes == [BATCH, 5]


async def test_what_the_state_shows_is_durable() -> None:
    async with stage() as made:
        made.commits.free.clear()
        made.shell.ask(submitted("a"))
        await made.commits.began.wait()
        reading = asyncio.get_running_loop().create_task(made.shell.settled())
        await asyncio.sleep(0)
        assert not reading.done()
        made.commits.free.set()
        assert {*(await reading).tasks} == {"a"}


async def test_a_rejected_row_fails_its_event_alone_and_leaves_no_trace() -> None:
    async with stage() as made:
        made.commits.rejects = {"3"}
        answers = [made.shell.ask(submitted(f"{number}")) for number in range(8)]
        said = [await answer_of(answer) for answer in answers]
        assert [isinstance(one, UnstorableError) for one in said] == [number == 3 for number in range(8)]
        state = await made.shell.settled()
        assert {*state.tasks} == {*state.lines} == {f"{number}" for number in range(8)} - {"3"}
        assert "3" not in made.commits.stored
        # What builds on it finds it gone; it may come again.
        assert isinstance(await answer_of(made.shell.ask(Cancelled(task_id="3", reason="", actor="t", known=None))),
                          NotFoundError)  # fmt: skip
        made.commits.rejects = set()
        await made.shell.ask(submitted("3"))
        assert "3" in made.commits.stored


async def test_what_builds_on_a_rejected_change_is_decided_without_it() -> None:
    async with stage() as made:
        made.commits.rejects = {"a"}
        first = made.shell.ask(submitted("a"))
        builds = made.shell.ask(Cancelled(task_id="a", reason="", actor="test", known=None))
        innocent = made.shell.ask(submitted("b"))
        assert isinstance(await answer_of(first), UnstorableError)
        assert isinstance(await answer_of(builds), NotFoundError)
        assert cast("Task", await innocent).id == "b"


async def test_too_much_is_turned_away_before_anything_changes_and_own_events_are_taken() -> None:
    async with stage() as made:
        made.commits.free.clear()
        first = made.shell.ask(submitted("first"))
        await made.commits.began.wait()
        waiting = [
            made.shell.ask(Renewed(LeaseClaim(lease_id="l", task_id="t", worker_id="w"))) for _ in range(PENDING)
        ]
        with pytest.raises(OverloadedError, match=r"16,384 changes wait"):
            made.shell.ask(submitted("too much"))
        made.shell.post(heard("w1"))
        made.commits.free.set()
        await first
        assert all([isinstance(await answer_of(one), LeaseLostError) for one in waiting])
        while "w1" not in (await made.shell.settled()).workers:  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0)
        assert "too much" not in (await made.shell.settled()).tasks
        await made.shell.ask(submitted("now"))


async def test_who_gives_up_waiting_cancels_no_change() -> None:
    async with stage() as made:
        made.commits.free.clear()
        gone = made.shell.ask(submitted("gone"))
        await made.commits.began.wait()
        gone.cancel()
        also = made.shell.ask(submitted("also gone"))
        also.cancel()
        made.commits.free.set()
        await made.shell.ask(submitted("last"))
        assert {*(await made.shell.settled()).tasks} == {"gone", "also gone", "last"}


async def test_an_event_that_fails_unexpectedly_is_answered_and_hinders_no_other() -> None:
    async with stage() as made:
        answers = [
            made.shell.ask(submitted("a")),
            made.shell.ask(cast("Event", object())),
            made.shell.ask(submitted("b")),
        ]
        said = [await answer_of(answer) for answer in answers]
        assert [str(one) if isinstance(one, MembridgeError) else "" for one in said] == ["", "internal error", ""]
        assert made.commits.transactions == 1


async def test_an_event_that_needs_what_changed_within_its_batch_is_applied_with_the_next() -> None:
    async with stage() as made:
        await made.shell.ask(submitted("a"))
        # The first ends the task, so the second needs what the database has of it, once the first is durable.
        ends = made.shell.ask(Cancelled(task_id="a", reason="", actor="test"))
        revives = made.shell.ask(Requeued(task_id="a", actor="test"))
        looked_up = list[tuple[list[str], bool]]()

        def wanted(batch: Sequence[Entry]) -> bool:
            return any(isinstance(entry.event, Requeued) and "a" not in made.state.tasks for entry in batch)

        async def fill_in(batch: Sequence[Entry]) -> Sequence[Entry]:
            looked_up.append(([type(entry.event).__name__ for entry in batch], made.commits.running))
            for entry in batch:
                entry.event = Requeued(task_id="a", actor="test", known=None)
            return batch

        made.wanted, made.fill_in = wanted, fill_in
        assert isinstance(await answer_of(revives), NotFoundError)
        assert looked_up == [(["Requeued"], False)]
        ends.cancel()


async def test_a_failed_transaction_ends_it_and_everything_that_waits_fails_as_it_did() -> None:
    async with stage() as made:
        made.commits.free.clear()
        asked = [made.shell.ask(submitted("a"))]
        await made.commits.began.wait()
        asked.append(made.shell.ask(submitted("b")))
        made.shell.post(Stirred())
        made.commits.failure = UnavailableError("the disk is gone")
        made.commits.free.set()
        for answer in asked:
            with pytest.raises(UnavailableError, match="the disk is gone"):
                await answer
        assert made.ended is made.commits.failure
        with pytest.raises(UnavailableError, match="the disk is gone"):
            made.shell.ask(submitted("late"))
        with pytest.raises(UnavailableError, match="the disk is gone"):
            await made.shell.settled()
        made.shell.post(Stirred())
        assert (made.commits.transactions, made.carried) == (1, [])


async def test_what_became_durable_while_it_was_stopped_is_answered_as_stored_and_the_rest_comes_again() -> None:
    async with stage() as made:
        made.commits.free.clear()
        stored = made.shell.ask(submitted("stored"))
        refused = made.shell.ask(Drained(worker_id="nobody", drained=True, actor="test"))
        await made.commits.began.wait()
        waiting = made.shell.ask(submitted("waiting"))
        assert made.running is not None
        made.running.cancel()
        await asyncio.sleep(0)
        assert not made.running.done()
        made.commits.free.set()
        await asyncio.wait({made.running})
        assert cast("Task", await stored).id == "stored"
        assert isinstance(await answer_of(refused), NotFoundError), "decided, so it is answered"
        with pytest.raises(UnavailableError, match="stopped scheduling"):
            await waiting
        assert isinstance(made.ended, asyncio.CancelledError)
        with pytest.raises(UnavailableError, match="stopped scheduling"):
            made.shell.ask(submitted("late"))


async def test_what_failed_while_it_was_stopped_is_not_said_to_be_stored() -> None:
    async with stage() as made:
        made.commits.free.clear()
        asked = made.shell.ask(submitted("a"))
        await made.commits.began.wait()
        assert made.running is not None
        made.running.cancel()
        made.commits.failure = UnavailableError("the disk is gone")
        made.commits.free.set()
        with pytest.raises(UnavailableError):
            await asked
        assert made.carried == []


async def test_a_tenure_that_cannot_be_loaded_does_not_begin() -> None:
    made = Stage()
    made.commits.failure = UnavailableError("the disk is gone")
    with pytest.raises(UnavailableError, match="the disk is gone"):
        await made.shell.begin(submitted("a"))
    made.commits.failure, made.commits.rejects = None, {"b"}
    with pytest.raises(UnstorableError):
        await made.shell.begin(submitted("b"))
    with pytest.raises(MembridgeError, match="internal error"):
        await made.shell.begin(cast("Event", object()))
    assert made.carried == []


async def test_events_are_applied_while_a_transaction_is_under_way_and_seen_when_their_own_is_durable() -> None:
    async with stage() as made:
        made.commits.free.clear()
        first = made.shell.ask(submitted("first"))
        await made.commits.began.wait()
        made.commits.began.clear()
        second = made.shell.ask(submitted("second"))
        while "second" not in made.state.tasks:  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0)
        assert not first.done()
        assert made.commits.transactions == 1
        assert made.carried == []
        made.commits.free.set()
        await second
        assert made.commits.sizes == [1, 1]


async def test_what_was_applied_on_top_of_a_rejected_change_is_decided_anew() -> None:
    async with stage() as made:
        made.commits.free.clear()
        made.commits.rejects = {"a"}
        first = [made.shell.ask(submitted(name)) for name in ("a", "b")]
        await made.commits.began.wait()
        on_top = [made.shell.ask(Cancelled(task_id=name, reason="", actor="test", known=None)) for name in ("a", "b")]
        own = made.shell.ask(submitted("c"))
        while "c" not in made.state.tasks:  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0)
        assert {"a", "b"}.isdisjoint(made.state.tasks), "both count as cancelled"
        made.commits.free.set()
        assert isinstance(await answer_of(first[0]), UnstorableError)
        assert cast("Task", await first[1]).id == "b"
        assert isinstance(await answer_of(on_top[0]), NotFoundError)
        assert cast("Task", await own).id == "c"
        state = await made.shell.settled()
        assert {*state.tasks} == {*state.lines} == {"c"}
        on_top[1].cancel()


async def test_an_event_that_waits_for_the_database_survives_the_rejection_of_the_transaction_before_it() -> None:
    async with stage() as made:
        made.commits.free.clear()
        made.commits.rejects = {"a"}
        first = [made.shell.ask(submitted(name)) for name in ("a", "b")]
        await made.commits.began.wait()
        looked_up = list[int]()

        async def fill_in(batch: Sequence[Entry]) -> Sequence[Entry]:
            looked_up.append(len(batch))
            return batch

        made.wanted, made.fill_in = lambda batch: any(isinstance(entry.event, Requeued) for entry in batch), fill_in
        needy = made.shell.ask(Requeued(task_id="elsewhere", actor="test", known=None))
        # It is taken now, and waits for the transaction under way.
        while made.shell._waiting:  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0)
        made.commits.free.set()
        assert isinstance(await answer_of(first[0]), UnstorableError)
        assert cast("Task", await first[1]).id == "b"
        assert isinstance(await answer_of(needy), NotFoundError)
        assert looked_up == [1]


async def test_an_event_that_was_put_off_is_answered_when_the_shell_is_stopped() -> None:
    async with stage() as made:
        await made.shell.ask(submitted("a"))
        made.commits.free.clear()
        made.commits.began.clear()
        ends = made.shell.ask(Cancelled(task_id="a", reason="", actor="test"))
        # The task ends in the same transaction, so this one is for the next.
        put_off = made.shell.ask(Requeued(task_id="a", actor="test"))
        await made.commits.began.wait()
        assert made.running is not None
        made.running.cancel()
        await asyncio.sleep(0)
        made.commits.free.set()
        assert isinstance(await answer_of(put_off), UnavailableError)
        ends.cancel()
