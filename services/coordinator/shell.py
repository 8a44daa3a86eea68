"""The one loop of a tenure: takes the events that wait, applies them, writes their rows, carries out their effects.

While one transaction is under way, events are applied for the next one. Nobody sees what they change before their own
transaction is durable: no answer, no message, no timer, no reader. What the database rejects is taken back, with all
that was applied after it.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Protocol

from membridge.aio.tasks import first_failure
from membridge.errors import MembridgeError, OverloadedError, UnavailableError
from membridge.system import clock
from membridge.system.logging import get_logger
from services.coordinator.engine.effects import Effect
from services.coordinator.engine.engine import apply, place
from services.coordinator.engine.events import Event, Now, UnreadError
from services.coordinator.engine.state import State
from services.coordinator.store.rows import writes_of
from services.database.group_commit import GroupCommit, UnstorableError, in_halves
from services.database.statements import Write

log = get_logger("membridge.coordinator")

#: Events that wait at most for one more request to be taken, and that one transaction takes at most.
PENDING, BATCH = 16_384, 512
_STOPPED = "this coordinator stopped scheduling"

#: Of the type that its event promises.
Answer = asyncio.Future[Any]


@dataclass(slots=True)
class Entry:
    """An event that waits, and the future of its answer; None when nobody waits for one."""

    event: Event
    answer: Answer | None = None


class LookUps(Protocol):
    """Reads what events need from the database."""

    def wanted(self, batch: Sequence[Entry]) -> bool:
        """Whether any of the events needs something."""
        ...

    async def fill_in(self, batch: Sequence[Entry]) -> Sequence[Entry]:
        """Fill in what the events need; return them without those that it had to refuse."""
        ...


#: Carries out an effect that is not a row, or answers; is called without one at the end of a batch.
Carry = Callable[[Effect | None, Answer | None], None]


@dataclass(slots=True)
class _Batch:
    """Events of one transaction, each with its effects, or with the error that is its answer."""

    entries: list[Entry] = field(default_factory=list[Entry])
    done: "list[tuple[Answer | None, Sequence[Effect] | MembridgeError]]" = field(
        default_factory=list["tuple[Answer | None, Sequence[Effect] | MembridgeError]"]
    )
    #: How far the state's journal goes that has what these events changed.
    until: int = 0
    #: The transaction, once it has begun; whether it is durable.
    commit: "asyncio.Task[MembridgeError | None] | None" = None
    stored: bool = False

    def note_stored(self) -> None:
        """Note that the transaction is durable."""
        self.stored = True

    def writes(self) -> list[Write]:
        """Return the rows of all effects."""
        applied = [effects for _, effects in self.done if not isinstance(effects, MembridgeError)]
        return writes_of(effect for effects in applied for effect in effects)


class Shell:
    """Applies events to a state, in the order of their arrival."""

    def __init__(self, state: State, group_commit: GroupCommit, *, look_ups: LookUps, carry: Carry) -> None:
        self._state, self._group_commit = state, group_commit
        self._look_ups, self._carry = look_ups, carry
        self._waiting = deque[Entry]()
        #: Events that have to be applied to what is durable; they go first.
        self._deferred = list[Entry]()
        #: Events that are in no other place: the database is being asked about them, or they are written in halves.
        self._taken, self._halved = list[Entry](), list[Entry]()
        self._readers = list[asyncio.Future[None]]()
        #: What is being applied, and what is being written.
        self._open, self._writing = _Batch(), _Batch()
        self._wake = asyncio.Event()
        self._failure: MembridgeError | None = None
        self._loop = asyncio.get_running_loop()

    def post(self, event: Event) -> None:
        """Take an event that nobody waits for. The live tasks bound how many there are."""
        if self._failure is None:
            self._waiting.append(Entry(event))
            self._wake.set()

    def ask(self, event: Event) -> Answer:
        """Take a request; the future is its answer, once what it changes is durable.

        Errors: OverloadedError; once stopped, what stopped this.
        """
        if self._failure is not None:
            raise self._failure
        if len(self._waiting) >= PENDING:
            raise OverloadedError(f"{PENDING:,} changes wait for the database already")
        answer: Answer = self._loop.create_future()
        self._waiting.append(Entry(event, answer))
        self._wake.set()
        return answer

    async def settled(self) -> State:
        """Return the state, to be read before the next await: it is what the database has.

        Raises what stopped this: nobody knows then what the database has.
        """
        if self._failure is None and (self._open.entries or self._writing.entries):
            reader: asyncio.Future[None] = self._loop.create_future()
            self._readers.append(reader)
            self._wake.set()
            await reader
        if self._failure is not None:
            raise self._failure
        return self._state

    async def begin(self, event: Event) -> None:
        """Apply the event that a tenure begins with, before all others; raise what it failed with."""
        answer: Answer = self._loop.create_future()
        await self._apply_and_write([Entry(event, answer)])
        if answer.done():
            answer.result()

    async def run(self) -> None:
        """Apply events until cancelled, or until a transaction fails: raises what it failed with."""
        try:
            with first_failure():
                async with asyncio.TaskGroup() as group:
                    while True:
                        await self._wake.wait()
                        self._wake.clear()
                        await self._round(group)
        except MembridgeError as error:
            self._failure = error
            raise
        finally:
            # Unavailable: the caller repeats its request, and the next coordinator accepts it.
            self._failure = self._failure or UnavailableError(_STOPPED, remedy="try again")
            if self._writing.stored:
                # Durable: whoever waits must not hear that it failed. The next tenure sees to the rest.
                self._release(self._writing)
            left = (self._writing.entries, self._open.entries, self._halved, self._taken, self._deferred, self._waiting)
            for entry in chain.from_iterable(left):
                # What nobody waits for, the next tenure finds out for itself.
                fail(entry.answer, self._failure)
            self._waiting.clear()
            self._let_read()

    async def _round(self, group: asyncio.TaskGroup) -> None:
        """Apply what waits, and write what is applied when the transaction before it has ended."""
        if self._readers or self._deferred:
            await self._write_all(group)
            self._let_read()
            await asyncio.sleep(0)
        room = BATCH - len(self._open.entries)
        self._taken = self._deferred or [self._waiting.popleft() for _ in range(min(room, len(self._waiting)))]
        self._deferred = list[Entry]()
        if self._look_ups.wanted(self._taken):
            # What the database says counts only while no transaction is under way.
            await self._write_all(group)
            self._taken = [*await self._look_ups.fill_in(self._taken)]
        if self._taken:
            self._apply(self._taken, self._open)
        self._taken = []
        if self._writing.commit is not None and len(self._open.entries) >= BATCH:
            await asyncio.wait({self._writing.commit})
        await self._write(group)
        if self._waiting or self._deferred or self._readers:
            self._wake.set()

    async def _write_all(self, group: asyncio.TaskGroup) -> None:
        """Write everything that is applied, and wait until it is durable."""
        await self._write(group)
        while self._writing.commit is not None:
            await asyncio.wait({self._writing.commit})
            await self._write(group)

    async def _write(self, group: asyncio.TaskGroup) -> None:
        """Begin a transaction with what is applied, unless one is under way; see to the one that has ended."""
        if self._writing.commit is not None:
            if not self._writing.commit.done():
                return
            await self._written(self._writing.commit.result())
        if self._open.entries:
            self._writing, self._open = self._open, _Batch()
            self._writing.until = self._state.close()
            self._writing.commit = group.create_task(self._commit(self._writing), name="transaction")

    async def _written(self, error: MembridgeError | None) -> None:
        """See to a transaction that has ended."""
        batch = self._writing
        if error is None:
            self._state.accept(batch.until)
            self._writing = _Batch()
            self._release(batch)
            return
        if not isinstance(error, UnstorableError):
            raise error
        # What was applied after it built on it: both are applied again, this one in halves.
        self._state.rewind(0)
        self._waiting.extendleft(reversed(self._open.entries))
        self._open, self._writing, self._halved = _Batch(), _Batch(), batch.entries
        await in_halves(batch.entries, self._apply_and_write, refuse)
        self._halved = []

    async def _commit(self, batch: _Batch) -> MembridgeError | None:
        """Store a batch; return what that failed with."""
        try:
            if writes := batch.writes():
                await self._group_commit.commit(writes, stored=batch.note_stored)
        except MembridgeError as error:
            return error
        finally:
            self._wake.set()
        return None

    async def _apply_and_write(self, entries: Sequence[Entry]) -> None:
        """Apply events and store them while nothing else is under way; raises UnstorableError with nothing changed."""
        self._apply(entries, self._open)
        self._writing, self._open = self._open, _Batch()
        self._state.close()
        if (error := await self._commit(self._writing)) is None:
            self._state.accept()
            batch, self._writing = self._writing, _Batch()
            self._release(batch)
            return
        if isinstance(error, UnstorableError):
            self._state.rewind(0)
            self._writing = _Batch()
        raise error

    def _apply(self, entries: Sequence[Entry], batch: _Batch) -> None:
        state, now = self._state, self._now()
        for entry in entries:
            begun = state.mark()
            outcome: Sequence[Effect] | MembridgeError
            try:
                outcome = apply(state, entry.event, now)
            except UnreadError:
                # What the event needs has changed within this transaction.
                state.rewind(begun)
                self._deferred.append(entry)
                continue
            except MembridgeError as error:
                outcome = error
                state.rewind(begun)
            except Exception:
                log.exception("event failed", name=type(entry.event).__name__)
                outcome = MembridgeError("internal error")
                state.rewind(begun)
            batch.entries.append(entry)
            batch.done.append((entry.answer, outcome))
        batch.done.append((None, place(state, now)))

    def _release(self, batch: _Batch) -> None:
        """Let the world see what is durable."""
        for answer, outcome in batch.done:
            if not isinstance(outcome, MembridgeError):
                for effect in outcome:
                    self._carry(effect, answer)
            else:
                fail(answer, outcome)
        self._carry(None, None)

    def _let_read(self) -> None:
        for reader in self._readers:
            if not reader.done():
                reader.set_result(None)
        self._readers.clear()

    def _now(self) -> Now:
        at = clock.now()
        return Now(self._loop.time(), at.timestamp(), clock.stamp(at))


def refuse(entry: Entry, error: MembridgeError) -> None:
    """Answer an event with an error; one that nobody waits for is logged."""
    if entry.answer is None:
        log.warning("event refused", name=type(entry.event).__name__, reason=error.message)
    fail(entry.answer, error)


def fail(answer: Answer | None, error: MembridgeError) -> None:
    """Answer with an error, unless nobody waits or the caller has given up."""
    if answer is not None and not answer.done():
        answer.set_exception(error)
        # The caller may be gone, and asyncio would log an exception that nobody retrieved.
        answer.exception()
