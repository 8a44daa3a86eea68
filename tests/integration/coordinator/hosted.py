"""The real thing as a driver of `tests.fixtures.task_engine.rules`: runtime, shell and group commit on a real database.

The loop's clock and the wall clock stand still until a rule sets them forward, so that each run is the same. The
database and the carrying of effects fail on demand.
"""

import asyncio
from collections.abc import Collection, Coroutine, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import pytest
from sqlalchemy import Table, select

from membridge.aio.deadline import Deadline
from membridge.errors import MembridgeError, UnavailableError
from membridge.system import clock
from schemas.leases import Accepted, Lease, LeaseClaim, Leased, Order
from services.coordinator.engine.effects import Effect
from services.coordinator.engine.events import Event, Lapsed, Now, Stirred
from services.coordinator.engine.state import Limits, State
from services.coordinator.runtime import Runtime
from services.coordinator.shell import Answer as Future
from services.coordinator.store import tables as store
from services.coordinator.store.epoch import begin_tenure, group_commit_of
from services.coordinator.store.migrations import MIGRATIONS
from services.coordinator.store.queries import Queries
from services.database.engine import open_engine, parse_url
from services.database.writer import Grouped, Writer
from tests.fixtures.idle_port import IdlePort
from tests.fixtures.task_engine.ledger import Tables
from tests.fixtures.task_engine.model import LOOP, PLAIN, WALL, Fate
from tests.fixtures.task_engine.promises import Outcome, check_state, names_of
from tests.fixtures.task_engine.rules import REQUESTS, Item
from tests.fixtures.task_engine.world import Answer, Message, World

T = TypeVar("T")
TABLES = (store.tasks, store.leases, store.results)
#: Seconds that opening the database may take.
BOUND = 30.0


class StillLoop(asyncio.SelectorEventLoop):
    """A loop whose clock stands still until it is set forward; pytest's timeout ends what hangs."""

    passed = 0.0

    def time(self) -> float:
        """Return the seconds of this loop's clock."""
        return LOOP + self.passed


class Hosted:
    """A coordinator's history on a real database, tenure after tenure; everything around it is a model."""

    def __init__(self, url: str, *, serial: bool) -> None:
        self.limits, self.url, self.world, self.number = Limits(serial=serial), url, World(), 0
        self.loop = StillLoop()
        self.runner = asyncio.Runner(loop_factory=lambda: self.loop)
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(clock, "now", lambda: datetime.fromtimestamp(WALL + self.loop.passed, UTC))
        self.tenure: _Tenure | None = None
        self.read: Tables | None = None
        self.over = asyncio.Event()
        self.run(self._open())

    async def _open(self) -> None:
        opened = asyncio.Event()
        self.life = self.loop.create_task(self._live(opened))
        await opened.wait()

    async def _live(self, opened: asyncio.Event) -> None:
        url = parse_url(self.url, Path("/nowhere"))
        async with open_engine(url, MIGRATIONS, deadline=Deadline.after(BOUND)) as self.engine:
            self.queries = Queries(self.engine)
            opened.set()
            await self.over.wait()

    def close(self) -> None:
        """End everything."""
        try:
            self.run(self._close())
        finally:
            self.runner.close()
            self.patch.undo()

    async def _close(self) -> None:
        await self._end()
        self.over.set()
        await self.life

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something."""
        self.read = None
        return self.runner.run(work)

    @property
    def alive(self) -> bool:
        """Whether a coordinator schedules."""
        return self.tenure is not None and not self.tenure.task.done()

    @property
    def state(self) -> State:
        """The state of the tenure."""
        assert self.tenure is not None
        return self.tenure.runtime._state

    @property
    def now(self) -> Now:
        """The present instant."""
        at: datetime = clock.now()
        return Now(self.loop.time(), at.timestamp(), clock.stamp(at))

    def begin(self) -> None:
        """Begin a tenure."""
        self.run(self._begin())

    async def _begin(self) -> None:
        self.number += 1
        self.tenure = _Tenure(self, self.number)
        await self.tenure.begun()
        await self.tenure.idle()

    def crash(self) -> None:
        """Let the coordinator die between two batches."""
        self.run(self._end())

    async def _end(self) -> None:
        if self.tenure is not None:
            self.tenure.task.cancel()
            await asyncio.wait({self.tenure.task})
            self.tenure = None

    def turn(self, items: Sequence[Item], fate: Fate = PLAIN) -> list[Outcome]:
        """Deliver what makes a batch; return what became of it. The tenure may end by that."""
        assert self.tenure is not None
        found = self.run(self.tenure.turn(items, fate))
        if not self.alive:
            self.crash()
        return found

    def usurp(self, items: Sequence[Item]) -> list[Outcome]:
        """Begin another tenure; then let the old one, which does not know, take a batch."""
        old = self.tenure
        assert old is not None
        self.begin()
        fresh, self.tenure = self.tenure, old
        found = self.turn(items)
        self.crash()
        self.tenure = fresh
        return found

    def advance(self, seconds: float) -> list[Event]:
        """Let time pass, and timers fire; return what happens in KV by that."""
        self.loop.passed += seconds
        if self.tenure is not None:
            self.run(self.tenure.idle())
        wall = self.now.wall
        over = [lease_id for lease_id, at in self.world.kept.items() if at <= wall]
        for lease_id in over:
            del self.world.kept[lease_id]
        return [Lapsed(lease_id) for lease_id in over if self.alive]

    def tables(self) -> Tables:
        """Return the database, as it was after the last event."""
        if self.read is None:
            self.read = self.run(self._read())
        return self.read

    async def _read(self) -> Tables:
        return {table.name: await self._rows(table) for table in TABLES}

    async def _rows(self, table: Table) -> dict[str, dict[str, Any]]:
        rows = await self.queries._rows(select(table).order_by(*table.primary_key.columns))
        return {str(row["id"]): dict(row) for row in rows}

    def check(self, pending: Collection[Event]) -> None:
        """Check the state of the tenure."""
        tenure = self.tenure
        assert tenure is not None
        kept = self.read
        loaded = self.run(tenure.runtime._lookups.load(()))
        self.read = kept
        armed = set(tenure.runtime._carrier._timers) | names_of(pending)
        check_state(self.state, loaded, tenure.last, armed=armed, sessions=self.loop.passed < 3_600.0)


class _Tenure(IdlePort):
    """A runtime and what is around it: it is the port of its runtime too."""

    def __init__(self, hosted: Hosted, number: int) -> None:
        self.hosted, self.world, self.number = hosted, hosted.world, number
        self.left: int | None = None
        #: Messages that wait for their answers.
        self.parked = 0
        self.answers: dict[int, asyncio.Future[Sequence[Accepted]]] = {}
        self.ready = asyncio.Event()
        self.task = hosted.loop.create_task(self._live())
        self.task.add_done_callback(lambda _: self.ready.set())

    async def begun(self) -> None:
        """Wait until it schedules."""
        await self.ready.wait()
        if self.task.done():
            self.task.result()
        assert not self.task.done()

    async def _live(self) -> None:
        hosted, epoch = self.hosted, await begin_tenure(self.hosted.engine)
        try:
            async with group_commit_of(hosted.engine, epoch) as group_commit, asyncio.TaskGroup() as group:
                self.writer = group_commit._writer = _FailingWriter(group_commit._writer)
                self.group, self.runtime = group, Runtime(group, group_commit, hosted.queries, self, hosted.limits)
                self.runtime._state.seed = bytes([self.number])
                shell = self.runtime._shell
                self._now, self._carry = shell._now, shell._carry
                shell._now, shell._carry = self._noted, self._carried
                try:
                    await self.runtime.load(set(self.world.kept))
                    group.create_task(self.runtime.run())
                    self.ready.set()
                    await hosted.loop.create_future()
                finally:
                    self.runtime.close()
        except* MembridgeError as errors:
            self.ended_by = errors

    async def turn(self, items: Sequence[Item], fate: Fate) -> list[Outcome]:
        """Deliver events, and wait until nothing more follows from them."""
        self.writer.fate, self.left = fate.commit, fate.crash_after
        asked = list[tuple[Event, Future]]()
        shell = self.runtime._shell
        self.writer.free.clear()
        # The second half is applied while the first one is being written.
        for part in (items[: len(items) // 2], items[len(items) // 2 :] or [Stirred()]):
            for item in part:
                if isinstance(item, Answer):
                    self._resolve(item)
                elif isinstance(item, REQUESTS):
                    asked.append((item, self._ask(item)))
                else:
                    shell.post(item)
            for _ in range(24):
                await asyncio.sleep(0)
        self.writer.free.set()
        await self.idle()
        waiting = {future for _, future in asked if not future.done()}
        while waiting and not self.task.done():
            # Answers that are read from the database come after the batch.
            done, _ = await asyncio.wait({*waiting, self.task}, return_when=asyncio.FIRST_COMPLETED)
            waiting -= done
        self.writer.fate, self.left = None, None
        return [Outcome(event, _answer(future)) for event, future in asked]

    def _ask(self, event: Event) -> Future:
        try:
            return self.runtime._shell.ask(event)
        except MembridgeError as error:
            # It has stopped meanwhile.
            stopped: Future = self.hosted.loop.create_future()
            stopped.set_exception(error)
            return stopped

    async def idle(self) -> None:
        """Wait until no event waits and none is being applied, or until the tenure has ended."""
        shell = self.runtime._shell
        while True:
            # What was resolved, or fell due, becomes an event within a few turns of the loop.
            for _ in range(8):
                await asyncio.sleep(0)
            try:
                await shell.settled()
            except MembridgeError:
                await asyncio.wait({self.task})
            # Beside the shell, only what waits for the answers of workers may be left.
            busy = shell._waiting or shell._deferred or shell._taken or len(self.group._tasks) - 1 - self.parked
            if self.task.done() or not busy:
                self.world.messages.sort(key=lambda one: (one.tenure, one.worker_id, one.leases[0].id))
                return

    def _resolve(self, answer: Answer) -> None:
        future = self.answers.pop(id(answer.message), None)
        if future is None or future.done():
            return
        if answer.takes is None:
            future.set_exception(UnavailableError("no answer"))
        else:
            future.set_result([Accepted(accepted=taken, reason="" if taken else "no") for taken in answer.takes])

    def _noted(self) -> Now:
        self.last = self._now()
        return self.last

    def _carried(self, effect: Effect | None, answer: Future | None, *more: object) -> None:
        if self.left is not None:
            if self.left == 0:
                raise _CrashError("killed between two effects")
            self.left -= 1
        self._carry(effect, answer, *more)

    async def send(self, worker_id: str, orders: Sequence[Order]) -> Sequence[Accepted]:
        message = Message(self.number, worker_id, [order.lease for order in orders])
        self.world.messages.append(message)
        future = self.answers[id(message)] = self.hosted.loop.create_future()
        self.parked += 1
        try:
            return await future
        finally:
            self.parked -= 1

    async def stop(self, claim: LeaseClaim) -> None:
        self.world.stops.append(claim)

    async def hold(self, lease: Lease) -> None:
        self.world.kept[lease.id] = self.hosted.now.wall + lease.ttl_seconds

    async def let_go(self, lease: Lease) -> None:
        self.world.kept.pop(lease.id, None)


class _CrashError(MembridgeError):
    """The coordinator dies here."""


class _FailingWriter:
    """A connection on which the next transaction fails: before it is committed, or after."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        #: Whether the next transaction is stored although it fails; None to let it be.
        self.fate: bool | None = None
        self.free = asyncio.Event()
        self.free.set()

    async def transact(self, grouped: Grouped) -> None:
        """Execute the statements and commit, or not, once that is let."""
        await self.free.wait()
        if self.fate is not False:
            await self._writer.transact(grouped)
        if self.fate is not None:
            raise ConnectionResetError("the connection was closed")


def _answer(future: Future) -> object:
    """Return an answer; None for one that never came, or that says that the tenure ended: nobody knows then."""
    if not future.done() or future.cancelled():
        return None
    error = future.exception()
    if error is not None:
        return None if isinstance(error, UnavailableError | _CrashError) else error
    value = future.result()
    return value.order.lease if isinstance(value, Leased) and value.order is not None else value
