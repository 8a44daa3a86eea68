"""Group commit: small changes of many callers share one transaction, and each is durable when its future is done.

One transaction runs at a time. Changes that arrive meanwhile go into the next one, so a disk that syncs 200 times a
second commits thousands of changes. All writes of one change are in one transaction. Each transaction begins with the
caller's fence, which raises when this process may not write any more.

When the database rejects a row, only that change fails, with the later changes of the same key: the batch is halved
until the change is found. Any other failure ends the group commit, because it is unknown then what is stored.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from membridge.aio.deadline import Deadline
from membridge.aio.lifecycle import Ready
from membridge.errors import InvalidRequestError, MembridgeError, OverloadedError, UnavailableError
from membridge.system.logging import get_logger
from services.database.engine import cause_of, is_of_values, to_its_end, unavailable
from services.database.statements import Row, Statement, Write

log = get_logger("membridge.database")

#: Checks, in the transaction itself, that this process may still write; raises a MembridgeError when not.
Fence = Callable[[AsyncConnection], Awaitable[None]]

#: Changes that wait at most, and that one transaction takes at most.
PENDING, BATCH = 16_384, 512
#: Turns of the event loop that a transaction waits for company.
TURNS = 12
#: Seconds that one transaction may take.
COMMIT_SECONDS = 30.0
_STOPPED = "this process stopped writing to the database"


class UnstorableError(InvalidRequestError):
    """The database rejected the values of a change. Nothing of that change is stored; other changes are."""


@dataclass(frozen=True, slots=True)
class _Pending:
    writes: Sequence[Write]
    done: "asyncio.Future[None]"
    key: str | None


class GroupCommit:
    """Writes to one database. `statements` are all that are written, in their sequence within a transaction.

    Every call raises UnavailableError once it has stopped, or what stopped it.
    """

    def __init__(self, engine: AsyncEngine, *, fence: Fence, statements: Sequence[Statement]) -> None:
        self._engine, self._fence = engine, fence
        self._places = {statement: place for place, statement in enumerate(statements)}
        self._pending: list[_Pending] = []
        self._wake = asyncio.Event()
        self._failure: MembridgeError | None = None
        #: Keys of which a change was rejected: later changes build on it and are rejected too, until `absolve`.
        self._spoilt: dict[str, UnstorableError] = {}

    def admit(self) -> None:
        """Raise OverloadedError when too many changes wait for one more request; once stopped, raise what stopped this.

        Changes that no request asked for, such as expiries, are submitted without this: the live tasks bound them.
        """
        if self._failure is not None:
            raise self._failure
        if len(self._pending) >= PENDING:
            raise OverloadedError(f"{PENDING:,} changes wait for the database already")

    def submit(self, writes: Sequence[Write], *, key: str | None = None) -> "asyncio.Future[None]":
        """Put writes into the next transaction; the future is done when that is durable (`durable` waits for it).

        A change of a `key` builds on the earlier ones of that key. Once stopped, raises what stopped this and takes
        nothing.
        """
        if self._failure is not None:
            raise self._failure
        one = _Pending(writes, asyncio.get_running_loop().create_future(), key)
        if not self._drops(one):
            self._pending.append(one)
            self._wake.set()
        return one.done

    def absolve(self, key: str) -> None:
        """Accept changes of a key again: the caller has read its state from the database."""
        self._spoilt.pop(key, None)

    async def run(self, ready: Ready) -> None:
        """Commit what is submitted until cancelled, or until a transaction fails: raises what it failed with."""
        ready()
        try:
            while True:
                await self._wake.wait()
                # Callers of the last transaction submit their next change within a few turns of the loop.
                for _ in range(TURNS):
                    await asyncio.sleep(0)
                batch, self._pending = self._pending[:BATCH], self._pending[BATCH:]
                if not self._pending:
                    self._wake.clear()
                await self._commit(batch)
        except MembridgeError as error:
            self._failure = error
            raise
        finally:
            # Unavailable, not fenced: the caller repeats its request, and the next process to write accepts it.
            self._failure = self._failure or UnavailableError(_STOPPED, remedy="try again")
            for one in self._pending:
                _fail(one.done, self._failure)
            self._pending = []

    async def _commit(self, batch: list[_Pending]) -> None:
        parts = [batch]
        try:
            while parts:
                part = [one for one in parts.pop() if not self._drops(one)]
                try:
                    if part:
                        await to_its_end(self._transact(part))
                except Exception as error:
                    if not is_of_values(error):
                        raise
                    if len(part) == 1:
                        self._refuse(part[0], error)
                        # At once: the caller may absolve the key before the remaining halves are committed.
                        left = [[one for one in later if not self._drops(one)] for later in parts]
                        parts = [later for later in left if later]
                    else:
                        parts += [part[len(part) // 2 :], part[: len(part) // 2]]
        except BaseException as error:
            told = error
            if isinstance(error, (SQLAlchemyError, OSError)):
                told = unavailable(self._engine.url, error)
            for one in batch:
                _fail(one.done, told if isinstance(told, MembridgeError) else UnavailableError(_STOPPED))
            if told is error:
                raise
            raise told from error

    async def _transact(self, batch: list[_Pending]) -> None:
        async with Deadline.after(COMMIT_SECONDS).scope("a transaction"), self._engine.begin() as connection:
            await self._fence(connection)
            for statement, rows in self._grouped(write for one in batch for write in one.writes):
                await connection.execute(statement.sql, rows)
        # Here, not by the caller: a cancellation in between must not report a durable change as lost.
        for one in batch:
            if not one.done.done():
                one.done.set_result(None)

    def _refuse(self, one: _Pending, error: Exception) -> None:
        refusal = UnstorableError(f"the database rejects it: {cause_of(error)}")
        log.warning("change refused", key=one.key, reason=refusal.message)
        _fail(one.done, refusal)
        if one.key is not None:
            self._spoilt[one.key] = refusal
            self._pending = [other for other in self._pending if not self._drops(other)]

    def _drops(self, one: _Pending) -> bool:
        """Reject a change that builds on a rejected one; return whether it did."""
        refusal = self._spoilt.get(one.key) if one.key is not None else None
        if refusal is not None:
            _fail(one.done, refusal)
        return refusal is not None

    def _grouped(self, writes: Iterable[Write]) -> list[tuple[Statement, list[Row]]]:
        """Return the rows by statement, in the statements' sequence; of rows with one key the last."""
        found: dict[Statement, dict[object, Row]] = {}
        for write in writes:
            rows = found.setdefault(write.statement, {})
            key = write.row[write.statement.key] if write.statement.key else len(rows)
            rows[key] = write.row
        return [
            (statement, list(found[statement].values())) for statement in sorted(found, key=self._places.__getitem__)
        ]


async def durable(done: "asyncio.Future[None]") -> None:
    """Wait until a change is durable; raise what it failed with. A cancellation of this does not cancel the change."""
    if not done.done():
        # What `asyncio.wait` does, at less cost: every request comes here.
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.add_done_callback(lambda _: woken.done() or woken.set_result(None))
        await woken
    done.result()


def _fail(done: "asyncio.Future[None]", error: MembridgeError) -> None:
    if not done.done():
        done.set_exception(error)
        # The caller may be gone, and asyncio would log an exception that nobody retrieved.
        done.exception()
