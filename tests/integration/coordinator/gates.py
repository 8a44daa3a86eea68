"""Points at which a test holds a runtime, or lets it fail: its transactions, and the reading of a task."""

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum

from asyncpg.exceptions import ConnectionDoesNotExistError

from membridge.errors import UnavailableError
from schemas.tasks import Task
from services.coordinator.store.queries import Queries
from services.database.group_commit import GroupCommit
from services.database.writer import Grouped, Writer


class Commit(Enum):
    """What becomes of a transaction: it is not sent, or it is committed and the answer is lost."""

    REFUSED = "refused"
    ANSWER_LOST = "answer lost"


@contextmanager
def failing(group_commit: GroupCommit, how: Commit) -> Generator[list[Commit]]:
    """Let each transaction fail during the body; yield what happened to them."""
    happened = list[Commit]()
    closed = ConnectionDoesNotExistError if group_commit._url.get_backend_name() == "postgresql" else sqlite3.Error

    async def fail(writer: Writer, grouped: Grouped) -> None:
        happened.append(how)
        if how is Commit.ANSWER_LOST:
            await writer.transact(grouped)
        raise closed("the connection was closed")

    with _hooked(group_commit, fail):
        yield happened


@contextmanager
def held(group_commit: GroupCommit) -> Generator[asyncio.Event]:
    """Let each transaction wait during the body; yield what is set when the first one does."""
    waits, free = asyncio.Event(), asyncio.Event()

    async def hold(writer: Writer, grouped: Grouped) -> None:
        waits.set()
        await free.wait()
        await writer.transact(grouped)

    with _hooked(group_commit, hold):
        try:
            yield waits
        finally:
            free.set()


Instead = Callable[[Writer, Grouped], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _Hooked:
    """A writer that does something else instead."""

    writer: Writer
    instead: Instead

    async def transact(self, grouped: Grouped) -> None:
        await self.instead(self.writer, grouped)


@contextmanager
def _hooked(group_commit: GroupCommit, instead: Instead) -> Generator[None]:
    writer = group_commit._writer
    group_commit._writer = _Hooked(writer, instead)
    try:
        yield
    finally:
        group_commit._writer = writer


class Unreadable(Queries):
    """Queries of which the next `failures` readings of a task fail."""

    failures = 0

    async def task(self, task_id: str) -> Task:
        """Return a task."""
        if self.failures:
            self.failures -= 1
            raise UnavailableError("the database does not answer")
        return await super().task(task_id)
