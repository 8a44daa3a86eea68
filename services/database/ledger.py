"""The ledger: small changes of many callers, committed together, durable when they return.

One transaction at a time; what comes meanwhile goes into the next one, so that a disk that syncs 200 times a second
commits thousands of changes. All of a caller's writes are in one transaction. Every transaction is fenced: it commits
only while the epoch that it was opened under is the one in the database.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from membridge.deadline import Deadline
from membridge.errors import LeaseLostError, MembridgeError, OverloadedError
from membridge.lifecycle import Ready
from services.database.engine import to_its_end, unavailable
from services.database.statements import ORDER, Row, Statement, Write
from services.database.tables import scheduling

#: Changes that wait at most, and that one transaction takes at most.
PENDING, BATCH = 16_384, 512
#: Turns of the event loop that a transaction waits for company.
TURNS = 12
#: Seconds that one transaction may take.
COMMIT_SECONDS = 30.0
_NAME = "tasks"


@dataclass(frozen=True, slots=True)
class _Pending:
    writes: Sequence[Write]
    done: "asyncio.Future[None]"


class Ledger:
    """Writes of one term. Raises LeaseLostError from every call once another term has begun."""

    def __init__(self, engine: AsyncEngine, epoch: int) -> None:
        self._engine, self._epoch = engine, epoch
        self._pending: list[_Pending] = []
        self._wake = asyncio.Event()
        self._failure: MembridgeError | None = None

    def submit(self, writes: Sequence[Write]) -> "asyncio.Future[None]":
        """Put writes into the next transaction; the future is done when that is durable.

        Raises OverloadedError when too much waits, and what broke the ledger once it is broken.
        """
        if self._failure is not None:
            raise self._failure
        if len(self._pending) >= PENDING:
            raise OverloadedError("the coordinator has more changes waiting than it takes")
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pending.append(_Pending(writes, done))
        self._wake.set()
        return done

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
            self._failure = self._failure or LeaseLostError("this coordinator does not schedule any more")
            for one in self._pending:
                _fail(one.done, self._failure)
            self._pending = []

    async def _commit(self, batch: list[_Pending]) -> None:
        try:
            await to_its_end(self._transact(batch))
        except BaseException as error:
            told = error
            if isinstance(error, (SQLAlchemyError, OSError)):
                told = unavailable(self._engine.url, error)
            for one in batch:
                _fail(one.done, told if isinstance(told, MembridgeError) else LeaseLostError("the coordinator stops"))
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
            raise LeaseLostError("another coordinator schedules now")


async def begin_term(engine: AsyncEngine) -> int:
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
