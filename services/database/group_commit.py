"""Many changes in one transaction, each one stored whole or not at all.

A disk that syncs 200 times a second commits thousands of changes in that time. Each transaction begins with the
caller's fence, which fails when this process may not write any more. When the database rejects a row, `in_halves`
finds the change that has it, and the others are stored. After any other failure it is unknown what is stored: the
caller stops writing.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

from sqlalchemy.ext.asyncio import AsyncEngine

from membridge.aio.deadline import Deadline
from membridge.errors import InvalidRequestError
from services.database.engine import cause_of, is_of_database, is_of_values, to_its_end, unavailable
from services.database.statements import Row, Statement, Verb, Write
from services.database.writer import Fence, Writer, open_writer

T = TypeVar("T")

#: Seconds that one transaction may take.
COMMIT_SECONDS = 30.0


class UnstorableError(InvalidRequestError):
    """The database rejected the values of a change. Nothing of that change is stored; other changes are."""


@asynccontextmanager
async def open_group_commit(
    engine: AsyncEngine, *, fence: Fence, statements: Sequence[Statement]
) -> AsyncGenerator["GroupCommit"]:
    """Open a connection that writes. `statements` are all that are written, in their sequence within a transaction.

    Raises UnavailableError.
    """
    try:
        async with open_writer(engine, fence) as writer:
            yield GroupCommit(engine, writer, statements)
    except Exception as error:
        if is_of_database(error):
            raise unavailable(engine.url, error) from error
        raise


class GroupCommit:
    """Writes to one database; made by `open_group_commit`."""

    def __init__(self, engine: AsyncEngine, writer: Writer, statements: Sequence[Statement]) -> None:
        self._url, self._writer = engine.url, writer
        self._places = {statement: place for place, statement in enumerate(statements)}

    async def commit(self, writes: Iterable[Write], *, stored: Callable[[], None]) -> None:
        """Store all writes in one transaction, and call `stored` once they are durable.

        A cancellation waits for the transaction to end: `stored` has been called if it was committed. Errors:
        UnstorableError for values that the database rejects, UnavailableError, what the fence says; after these two it
        is unknown what is stored.
        """
        try:
            await to_its_end(self._transact(self._grouped(writes), stored))
        except Exception as error:
            if is_of_values(error):
                raise UnstorableError(f"the database rejects it: {cause_of(error)}") from error
            if is_of_database(error):
                raise unavailable(self._url, error) from error
            raise

    async def _transact(self, grouped: list[tuple[Statement, list[Row]]], stored: Callable[[], None]) -> None:
        async with Deadline.after(COMMIT_SECONDS).scope("a transaction"):
            await self._writer.transact(grouped)
        stored()

    def _grouped(self, writes: Iterable[Write]) -> list[tuple[Statement, list[Row]]]:
        """Return the rows by statement, in the statements' sequence; of several changes of one row the last."""
        found: dict[Statement, dict[object, Row]] = {}
        for write in writes:
            rows = found.setdefault(write.statement, {})
            key = len(rows) if write.statement.verb is Verb.INSERT else write.row["id"]
            rows[key] = write.row
        return [
            (statement, list(found[statement].values())) for statement in sorted(found, key=self._places.__getitem__)
        ]


async def in_halves(
    batch: Sequence[T], attempt: Callable[[Sequence[T]], Awaitable[None]], refuse: Callable[[T, UnstorableError], None]
) -> None:
    """Attempt a batch; when that raises UnstorableError, its halves, until what is rejected is alone and refused."""
    parts = [batch]
    while parts:
        part = parts.pop()
        try:
            await attempt(part)
        except UnstorableError as error:
            if len(part) > 1:
                parts += [part[len(part) // 2 :], part[: len(part) // 2]]
            else:
                refuse(part[0], error)
