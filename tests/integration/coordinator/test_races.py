"""Two events at one task at the same time, and changes that are refused, turned away or stored without an answer.

Whatever happens, the live tasks agree with the database afterwards, one of two that exclude each other is refused, and
the context goes on.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pytest
from msgspec.structs import replace

from membridge.aio.deadline import Deadline
from membridge.errors import LeaseLostError, OverloadedError, UnavailableError
from schemas.leases import Accepted, Lease, LeaseClaim, LeasesRequest, LeaseStatus, Order, Report
from schemas.results import Metrics, ResultStatus
from schemas.tasks import Policy, TaskSpec, TaskStatus
from services.coordinator.engine.events import Stirred
from services.coordinator.engine.machine import HELD, LIVE, WrongStateError
from services.coordinator.engine.state import Limits
from services.coordinator.runtime import Runtime
from services.coordinator.shell import PENDING
from services.coordinator.store.migrations import MIGRATIONS
from services.database.engine import open_engine, parse_url
from services.database.group_commit import UnstorableError
from tests.integration.coordinator.gates import Commit, Unreadable, failing, held
from tests.integration.coordinator.histories import AcceptingPort, History, answered

COMPLETED, DEAD, FAILED, QUEUED = TaskStatus.COMPLETED, TaskStatus.DEAD, TaskStatus.FAILED, TaskStatus.QUEUED
RUNNING = TaskStatus.RUNNING
#: What goes back to the queue may be given out in the same transaction.
AGAIN = {QUEUED, TaskStatus.LEASED}


@dataclass(frozen=True, slots=True)
class Case:
    """A task in the state that a test begins with, and the lease that it has or had last."""

    history: History
    task: str
    context: str
    lease: Lease | None

    @property
    def runtime(self) -> Runtime:
        return self.history.runtime

    def claim(self) -> LeaseClaim:
        assert self.lease is not None
        return LeaseClaim(lease_id=self.lease.id, task_id=self.task, worker_id=self.lease.worker_id)

    def report(self, *, success: bool, tokens: int = 1) -> Report:
        claim = self.claim()
        return Report(
            lease_id=claim.lease_id, task_id=claim.task_id, worker_id=claim.worker_id,
            metrics=Metrics(duration_ms=1, tokens_used=tokens),
            status=ResultStatus.SUCCESS if success else ResultStatus.ERROR,
            output="o" if success else None, error_message=None if success else "e",
        )  # fmt: skip

    async def expire(self) -> None:
        """Let the lease expire; raise LeaseLostError when it has ended otherwise."""
        lease = self.claim().lease_id
        await self.history.expire(lease)
        found = await self.history.queries.leases(LeasesRequest(task_id=self.task, status=None))
        if next(one.status for one in found if one.id == lease) is not LeaseStatus.EXPIRED:
            raise LeaseLostError("it ended")

    async def status(self) -> TaskStatus:
        return (await self.history.queries.task(self.task)).status


EVENTS: dict[str, Callable[[Case], Awaitable[object]]] = {
    "requeue": lambda case: case.runtime.requeue(case.task, actor="test"),
    "cancel": lambda case: case.runtime.cancel(case.task, reason="", actor="test"),
    "success": lambda case: case.runtime.report(case.report(success=True)),
    "error": lambda case: case.runtime.report(case.report(success=False)),
    "hand back": lambda case: case.runtime.hand_back(case.claim()),
    "expiry": lambda case: case.expire(),
    "heartbeat": lambda case: case.runtime.heartbeat(case.claim()),
}
#: Of each of these one at most is accepted.
ONCE = [{"success", "error", "hand back", "expiry"}, {"success", "cancel"}, {"cancel"}, {"requeue"}]
OF_CLIENTS = list(product(["requeue", "cancel"], repeat=2))
PAIRS = [
    *((status, pair) for status in (DEAD, COMPLETED, FAILED, QUEUED) for pair in OF_CLIENTS),
    *((RUNNING, pair) for pair in product(EVENTS, repeat=2)),
]


@asynccontextmanager
async def history_on(url: str, folder: Path, port: AcceptingPort | None = None) -> AsyncGenerator[History]:
    """A history whose leases do not expire, in its first tenure."""
    async with (
        open_engine(parse_url(url, folder / "x"), MIGRATIONS, deadline=Deadline.after(30.0)) as engine,
        asyncio.TaskGroup() as group,
    ):
        history = History(engine, port or AcceptingPort(), group, random.Random(1), Limits())
        history.queries = Unreadable(engine)
        await history.begin()
        yield history
        await history.kill()


async def arrived(history: History, task: str) -> Lease:
    """Return the lease under which a worker was given a task, once it runs."""
    async with asyncio.timeout(20.0):
        while (live := (await history.state()).tasks.get(task)) is None or live.status is not RUNNING:  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0)
    return next(one.lease for one in reversed(history.port.orders) if one.task.id == task)


async def brought_to(history: History, status: TaskStatus, context: str) -> Case:
    """Submit a task and bring it to a state."""
    spec = TaskSpec(context_id=context, agent_slug="x", prompt="p", max_attempts=1 if status is DEAD else 3)
    spec = replace(spec, labels=["none has it"]) if status is QUEUED else spec
    task = await history.runtime.submit(spec, actor="test")
    if status is QUEUED:
        return Case(history, task.id, context, None)
    case = Case(history, task.id, context, await arrived(history, task.id))
    if status is not RUNNING:
        await history.runtime.report(case.report(success=status is COMPLETED))
    assert await case.status() is status
    return case


async def outcome(event: str, case: Case) -> str | None:
    """Let something happen; return what was accepted, None when it was refused."""
    try:
        await EVENTS[event](case)
    except (WrongStateError, LeaseLostError):
        return None
    return event


async def both(case: Case, pair: tuple[str, str], *, together: bool) -> list[str]:
    """Let two events happen, in one transaction or the second during the first's; return which were accepted."""
    history = case.history
    async with asyncio.TaskGroup() as group:
        if together:
            asked = [group.create_task(outcome(event, case)) for event in pair]
        else:
            with held(history.group_commit) as waits:
                asked = [group.create_task(outcome(pair[0], case))]
                begun = group.create_task(waits.wait())
                # What is refused needs no transaction.
                await asyncio.wait({asked[0], begun}, return_when=asyncio.FIRST_COMPLETED)
                begun.cancel()
                asked.append(group.create_task(outcome(pair[1], case)))
                await asyncio.sleep(0)
    return [event for event in (one.result() for one in asked) if event is not None]


async def ends(case: Case) -> list[str]:
    """Return what ended the leases of a task."""
    records = await case.history.queries.audit(entity_id=case.task, before=None, limit=100)
    return [one.action for one in records if one.action in {"completed", "failed", "handed_back", "expired"}]


@pytest.mark.parametrize("together", [True, False], ids=["in one transaction", "during a transaction"])
async def test_of_two_events_at_once_one_is_refused_or_both_count_and_the_context_goes_on(
    database_url: str, tmp_path: Path, together: bool
) -> None:
    async with history_on(database_url, tmp_path) as history:
        for number, (status, pair) in enumerate(PAIRS):
            case = await brought_to(history, status, f"c{number}")
            follower = await case.runtime.submit(
                TaskSpec(context_id=case.context, agent_slug="x", prompt="next"), actor="test"
            )
            before = await ends(case)
            accepted = await both(case, pair, together=together)
            # One that handed a task back is given none until it is heard of again.
            for name in ("w1", "w2"):
                history.hear(name)
            what = f"{status.value}: {pair} -> {accepted}"
            # Of two expiries both find the lease expired, and it ended once.
            once = {*accepted} if pair == ("expiry", "expiry") else accepted
            for exclusive in ONCE:
                assert len([event for event in once if event in exclusive]) <= 1, what
            assert len(await ends(case)) - len(before) <= 1, what
            await history.agree()
            if "success" in accepted and "requeue" not in accepted:
                assert await case.status() is COMPLETED, what
            # The next one of the context runs once this one is over, and not meanwhile.
            live = (await history.state()).tasks
            assert len([one for one in live.values() if one.context_id == case.context and one.status in HELD]) <= 1, (
                what
            )
            if case.task in live:
                ended = status not in LIVE or {"cancel", "success"} & set(accepted)
                assert ended or live[follower.id].status is QUEUED, what
                await case.runtime.cancel(case.task, reason="", actor="test")
            lease = await arrived(history, follower.id)
            await case.runtime.report(Case(history, follower.id, case.context, lease).report(success=True))
            await history.agree()


@pytest.mark.parametrize("how", list(Commit))
async def test_a_change_whose_commit_fails_is_made_or_not_and_can_be_asked_for_again(
    database_url: str, tmp_path: Path, how: Commit
) -> None:
    async with history_on(database_url, tmp_path) as history:
        for number, (event, after) in enumerate(
            {"requeue": AGAIN, "cancel": {DEAD}, "success": {COMPLETED}, "error": {FAILED}, "hand back": AGAIN}.items()
        ):
            status = DEAD if event == "requeue" else RUNNING
            case = await brought_to(history, status, f"c{number}")
            with failing(history.group_commit, how), pytest.raises(UnavailableError):
                await EVENTS[event](case)
            await history.kill()
            before = await case.status()
            assert before in (after if how is Commit.ANSWER_LOST else {status}), event
            kept = [lease.id for lease in await history.queries.active_leases()]
            runtime = await history.begin(kept)
            if before is status:
                # A worker says so again; the lease that it has is still the live one.
                assert await outcome(event, case) == event
            elif after is not AGAIN:
                assert await outcome(event, case) is None
            await history.agree()
            if case.task in (await history.state()).tasks:
                await runtime.cancel(case.task, reason="", actor="test")


async def test_a_result_that_is_turned_away_for_overload_is_taken_when_it_is_said_again(
    database_url: str, tmp_path: Path
) -> None:
    async with history_on(database_url, tmp_path) as history:
        case = await brought_to(history, RUNNING, "c")
        async with asyncio.TaskGroup() as group:
            with held(history.group_commit) as waits:
                spec = TaskSpec(context_id="other", agent_slug="x", prompt="p", labels=["none has it"])
                submitted = group.create_task(answered(case.runtime.submit(spec, actor="test")))
                await waits.wait()
                # What happens by itself is taken without a bound.
                for _ in range(PENDING):
                    case.runtime.post(Stirred())
                history.hear("w9")
                for event in ("success", "error", "hand back", "cancel", "heartbeat"):
                    with pytest.raises(OverloadedError):
                        await EVENTS[event](case)
        async with asyncio.timeout(20.0):
            while "w9" not in (await history.state()).workers:  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0)
        state = await history.state()
        assert submitted.result().id in state.tasks
        assert state.tasks[case.task].status is RUNNING
        await history.agree()
        assert await outcome("success", case) == "success"
        assert await case.status() is COMPLETED
        await history.agree()


async def test_a_result_that_the_database_refuses_leaves_the_task_as_it_was_and_fails_nobody_else(
    database_url: str, tmp_path: Path
) -> None:
    async with history_on(database_url, tmp_path) as history:
        case = await brought_to(history, RUNNING, "c")
        spec = TaskSpec(context_id="other", agent_slug="x", prompt="p")
        follower = await case.runtime.submit(replace(spec, context_id="c"), actor="test")
        async with asyncio.TaskGroup() as group:
            others = [group.create_task(answered(case.runtime.submit(spec, actor="test"))) for _ in range(3)]
            poisoned = [
                group.create_task(_refused(case.runtime.report(case.report(success=True, tokens=2**63)))),
                group.create_task(
                    _refused(case.runtime.submit(replace(spec, policy=Policy(budget=2**63)), actor="test"))
                ),
            ]
        assert all(one.result() for one in poisoned)
        assert {one.result().id for one in others} <= {*(await history.state()).tasks}
        await history.agree()
        assert await outcome("success", case) == "success"
        assert await case.status() is COMPLETED
        await arrived(history, follower.id)
        await history.agree()


async def _refused(work: Awaitable[object]) -> bool:
    with pytest.raises(UnstorableError):
        await work
    return True


async def test_a_task_that_cannot_be_read_goes_back_to_the_queue_at_once(database_url: str, tmp_path: Path) -> None:
    async with history_on(database_url, tmp_path) as history:
        spec = TaskSpec(context_id="c", agent_slug="x", prompt="p", labels=["later"])
        task = await history.runtime.submit(spec, actor="test")
        await history.kill()
        # A new tenure has no prompt in memory.
        queries = history.queries
        assert isinstance(queries, Unreadable)
        queries.failures = 1
        runtime = await history.begin()
        history.hear("w3", ["later"])
        lease = await arrived(history, task.id)
        assert queries.failures == 0
        live = (await history.state()).tasks[task.id]
        assert (live.attempts, live.interruptions) == (1, 1)
        await runtime.report(Case(history, task.id, "c", lease).report(success=True))
        assert (await history.queries.task(task.id)).status is COMPLETED
        await history.agree()


class Slow(AcceptingPort):
    """Workers that take an order when they are let, and what they were asked in its order."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.takes = asyncio.Event()
        self.stopped = asyncio.Event()

    async def send(self, worker_id: str, orders: Sequence[Order]) -> Sequence[Accepted]:
        self.asked.append("run")
        answers = await super().send(worker_id, orders)
        await self.takes.wait()
        self.asked.append("taken")
        return answers

    async def stop(self, claim: LeaseClaim) -> None:
        del claim
        self.asked.append("stop")
        self.stopped.set()


async def test_a_task_that_is_cancelled_before_its_worker_has_it_is_not_run(database_url: str, tmp_path: Path) -> None:
    port = Slow()
    async with history_on(database_url, tmp_path, port) as history, asyncio.timeout(20.0):
        runtime, spec = history.runtime, TaskSpec(context_id="c", agent_slug="x", prompt="p")
        later = await runtime.submit(replace(spec, labels=["later"]), actor="test")
        await runtime.cancel(later.id, reason="", actor="test")
        history.hear("w3", ["later"])
        # In the transaction that would lease it: it is not leased, and nothing is sent.
        revived = runtime.requeue(later.id, actor="test")
        cancelled = runtime.cancel(later.id, reason="", actor="test")
        await revived
        assert (await cancelled).status is DEAD
        assert port.asked == []
        # During the transaction that leases it, and while it is sent: what asks the worker to stop is said again.
        with held(history.group_commit) as waits:
            second = runtime.submit(spec, actor="test")
            await waits.wait()
            (task,) = history.runtime._state.tasks
            cancelling = runtime.cancel(task, reason="", actor="test")
        await second
        assert (await cancelling).status is DEAD
        await port.stopped.wait()
        assert port.asked == ["run", "stop"]
        port.stopped.clear()
        port.takes.set()
        await port.stopped.wait()
        assert port.asked == ["run", "stop", "taken", "stop"]
        await history.agree()


async def test_one_key_submitted_many_times_at_once_is_one_task_also_when_the_first_gave_up(
    database_url: str, tmp_path: Path
) -> None:
    async with history_on(database_url, tmp_path) as history:
        runtime, spec = history.runtime, TaskSpec(context_id="c", agent_slug="x", prompt="p", idempotency_key="k")
        async with asyncio.TaskGroup() as group:
            with held(history.group_commit) as waits:
                first = group.create_task(answered(runtime.submit(spec, actor="test")))
                await waits.wait()
                first.cancel()
                pair = [group.create_task(answered(runtime.submit(spec, actor="test"))) for _ in range(2)]
                await asyncio.wait({first})
        ids = {one.result().id for one in pair} | {(await runtime.submit(spec, actor="test")).id}
        assert len(ids) == 1
        assert list((await history.queries.counts()).values()) == [1]


async def test_what_is_durable_when_the_tenure_is_cancelled_is_answered_and_the_next_tenure_has_it(
    database_url: str, tmp_path: Path
) -> None:
    async with history_on(database_url, tmp_path) as history, asyncio.timeout(20.0):
        case = await brought_to(history, RUNNING, "c")
        spec = TaskSpec(context_id="d", agent_slug="x", prompt="p", labels=["none has it"])
        assert history.tenure is not None
        with held(history.group_commit) as waits:
            submitted = history.runtime.submit(spec, actor="test")
            reported = case.runtime.report_short(case.report(success=True))
            assert reported is not None
            await waits.wait()
            waiting = history.runtime.submit(spec, actor="test")
            history.tenure.cancel()
            await asyncio.sleep(0)
        await asyncio.wait({history.tenure})
        assert (await reported).accepted
        task = await submitted
        with pytest.raises(UnavailableError):
            await waiting
        assert await case.status() is COMPLETED
        await history.begin()
        assert {*(await history.state()).tasks} == {task.id}
        await history.agree()
