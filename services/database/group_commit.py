"""The ledger: small changes of many callers, committed together, durable when they return.

One transaction at a time; what comes meanwhile goes into the next one, so that a disk that syncs 200 times a second
commits thousands of changes. All of a caller's writes are in one transaction. Every transaction is fenced: it commits
only while the epoch that it was opened under is the one in the database.

A change whose values the database refuses fails its caller alone, with the later changes of the same task: the batch is
halved until that change is found. Any other failure ends the term, because nobody knows then what is stored.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from membridge.aio.deadline import Deadline
from membridge.aio.lifecycle import Ready
from membridge.errors import InvalidRequestError, MembridgeError, OverloadedError, UnavailableError
from membridge.system.logging import get_logger
from services.database.engine import cause_of, is_of_values, to_its_end, unavailable
from services.database.statements import ORDER, Row, Statement, Write
from services.database.tables import scheduling

log = get_logger("membridge.coordinator")

#: Changes that wait at most, and that one transaction takes at most.
PENDING, BATCH = 16_384, 512
#: Turns of the event loop that a transaction waits for company.
TURNS = 12
#: Seconds that one transaction may take.
COMMIT_SECONDS = 30.0
_NAME = "tasks"
_OVER = "this coordinator does not schedule any more"


class UnstorableError(InvalidRequestError):
    """A change whose values the database refuses. Nothing of it is stored, and everything else is as it was."""


@dataclass(frozen=True, slots=True)
class _Pending:
    writes: Sequence[Write]
    done: "asyncio.Future[None]"
    task_id: str | None


class GroupCommit:
    """Writes of one term. Every call raises UnavailableError once the term is over."""

    def __init__(self, engine: AsyncEngine, epoch: int) -> None:
        self._engine, self._epoch = engine, epoch
        self._pending: list[_Pending] = []
        self._wake = asyncio.Event()
        self._failure: MembridgeError | None = None
        #: Tasks of which a change was refused: what builds on that change is refused too, until `absolve`.
        self._spoilt: dict[str, UnstorableError] = {}

    def admit(self) -> None:
        """Raise OverloadedError when too much waits for one more request, and what broke the ledger once it is broken.

        What nobody asked for, an expiry for one, is submitted without: the live tasks are its bound.
        """
        if self._failure is not None:
            raise self._failure
        if len(self._pending) >= PENDING:
            raise OverloadedError("the coordinator has more changes waiting than it takes")

    def submit(self, writes: Sequence[Write], *, task_id: str | None = None) -> "asyncio.Future[None]":
        """Put writes into the next transaction; the future is done when that is durable (`durable` waits for it).

        Raises what broke the ledger once it is broken; nothing was taken then.
        """
        if self._failure is not None:
            raise self._failure
        one = _Pending(writes, asyncio.get_running_loop().create_future(), task_id)
        if not self._drops(one):
            self._pending.append(one)
            self._wake.set()
        return one.done

    def absolve(self, task_id: str) -> None:
        """Take changes of a task again: its state was read anew."""
        self._spoilt.pop(task_id, None)

    async def run(self, ready: Ready) -> None:
        """Commit what is submitted until cancelled. Raises what a transaction failed with: the term is over then."""
        ready()
        try:
            while True:
                await self._wake.wait()
                # What the last transaction let go on comes back with more within a few turns of the loop.
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
            # Not that the lease is lost: a worker says its result again, and the next term takes it.
            self._failure = self._failure or UnavailableError(_OVER, remedy="try again")
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
                        # At once: the task may be read again before the halves that wait are committed.
                        left = [[one for one in later if not self._drops(one)] for later in parts]
                        parts = [later for later in left if later]
                    else:
                        parts += [part[len(part) // 2 :], part[: len(part) // 2]]
        except BaseException as error:
            told = error
            if isinstance(error, (SQLAlchemyError, OSError)):
                told = unavailable(self._engine.url, error)
            for one in batch:
                _fail(one.done, told if isinstance(told, MembridgeError) else UnavailableError(_OVER))
            if told is error:
                raise
            raise told from error

    async def _transact(self, batch: list[_Pending]) -> None:
        async with Deadline.after(COMMIT_SECONDS).scope("a transaction"), self._engine.begin() as connection:
            await self._check_epoch(connection)
            for statement, rows in _grouped(write for one in batch for write in one.writes):
                await connection.execute(statement.sql, rows)
        # Told here: who is cancelled meanwhile must not take what is durable for lost.
        for one in batch:
            if not one.done.done():
                one.done.set_result(None)

    async def _check_epoch(self, connection: AsyncConnection) -> None:
        # An update, so that on PostgreSQL a successor waits for this transaction to end.
        fence = update(scheduling).where(scheduling.c.name == _NAME, scheduling.c.epoch == self._epoch)
        if (await connection.execute(fence.values(epoch=self._epoch))).rowcount != 1:
            raise UnavailableError("another coordinator schedules now", remedy="try again")

    def _refuse(self, one: _Pending, error: Exception) -> None:
        refusal = UnstorableError(f"the database does not take it: {cause_of(error)}")
        log.warning("change refused", task=one.task_id, reason=refusal.message)
        _fail(one.done, refusal)
        if one.task_id is not None:
            self._spoilt[one.task_id] = refusal
            self._pending = [other for other in self._pending if not self._drops(other)]

    def _drops(self, one: _Pending) -> bool:
        """Refuse a change that builds on one that was refused; return whether it did."""
        refusal = self._spoilt.get(one.task_id) if one.task_id is not None else None
        if refusal is not None:
            _fail(one.done, refusal)
        return refusal is not None


async def durable(done: "asyncio.Future[None]") -> None:
    """Wait until a change is durable and raise what it failed with. Who is cancelled here cancels no change."""
    if not done.done():
        # As `asyncio.wait` would, at less cost: every request comes here.
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.add_done_callback(lambda _: woken.done() or woken.set_result(None))
        await woken
    done.result()


async def begin_tenure(engine: AsyncEngine) -> int:
    """Begin a new term in the database and return its epoch; from now on every older term's writes are refused."""
    try:
        return await to_its_end(_next_epoch(engine))
    except (SQLAlchemyError, OSError) as error:
        raise unavailable(engine.url, error) from error


async def _next_epoch(engine: AsyncEngine) -> int:
    async with Deadline.after(COMMIT_SECONDS).scope("beginning a term"), engine.begin() as connection:
        moved = update(scheduling).where(scheduling.c.name == _NAME).values(epoch=scheduling.c.epoch + 1)
        if (await connection.execute(moved)).rowcount != 1:
            await connection.execute(scheduling.insert().values(name=_NAME, epoch=1))
        epoch = await connection.scalar(select(scheduling.c.epoch).where(scheduling.c.name == _NAME))
    return int(epoch or 0)


def _grouped(writes: Iterable[Write]) -> list[tuple[Statement, list[Row]]]:
    """Return the rows by statement, in the order of `ORDER`; of rows with one key the last."""
    found: dict[Statement, dict[object, Row]] = {}
    for write in writes:
        rows = found.setdefault(write.statement, {})
        key = write.row[write.statement.key] if write.statement.key else len(rows)
        rows[key] = write.row
    return [(statement, list(found[statement].values())) for statement in ORDER if statement in found]


def _fail(done: "asyncio.Future[None]", error: MembridgeError) -> None:
    if not done.done():
        done.set_exception(error)
        # Whoever waited may have gone; nobody is told twice.
        done.exception()
