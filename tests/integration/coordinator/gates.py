"""Points at which a test holds a runtime, or lets it fail: commits of its database, and the reading of a task."""

import asyncio
from collections.abc import Generator
from contextlib import contextmanager
from enum import Enum

from sqlalchemy.pool import PoolProxiedConnection
from sqlalchemy.util import await_only

from membridge.errors import UnavailableError
from schemas.tasks import Task
from services.coordinator.store.queries import Queries
from services.database.engine import Engine


class Commit(Enum):
    """What becomes of a commit: it is not sent, or it is done and its answer is lost."""

    REFUSED = "refused"
    ANSWER_LOST = "answer lost"


@contextmanager
def failing(engine: Engine, how: Commit) -> Generator[list[Commit]]:
    """Let each commit fail during the body; yield what happened to them."""
    dialect, happened = engine.sync_engine.dialect, list[Commit]()
    commit = dialect.do_commit

    def fail(connection: PoolProxiedConnection) -> None:
        happened.append(how)
        if how is Commit.ANSWER_LOST:
            commit(connection)
        raise dialect.loaded_dbapi.OperationalError("the connection was closed")  # type: ignore[attr-defined]

    dialect.do_commit = fail  # type: ignore[method-assign]
    try:
        yield happened
    finally:
        dialect.do_commit = commit  # type: ignore[method-assign]


@contextmanager
def held(engine: Engine) -> Generator[asyncio.Event]:
    """Let each commit wait during the body; yield what is set when the first one does."""
    dialect, waits, free = engine.sync_engine.dialect, asyncio.Event(), asyncio.Event()
    commit = dialect.do_commit

    def hold(connection: PoolProxiedConnection) -> None:
        waits.set()
        await_only(free.wait())
        commit(connection)

    dialect.do_commit = hold  # type: ignore[method-assign]
    try:
        yield waits
    finally:
        dialect.do_commit = commit  # type: ignore[method-assign]
        free.set()


class Meeting(Queries):
    """Records in which the readers of a task meet: each waits for `number` of them, or until no more can come.

    The next `failures` readings fail.
    """

    number = 1
    failures = 0

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._there: list[asyncio.Event] = []

    async def task(self, task_id: str) -> Task:
        """Return a task when all have read it."""
        if self.failures:
            self.failures -= 1
            raise UnavailableError("the database does not answer")
        found = await super().task(task_id)
        met = asyncio.Event()
        self._there.append(met)
        if len(self._there) >= self.number:
            self.part()
        try:
            # Another one that may not read yet is waited for in vain.
            async with asyncio.timeout(0.05):
                await met.wait()
        except TimeoutError:
            self.part()
        return found

    def part(self) -> None:
        """Let all go on that wait here."""
        for one in self._there:
            one.set()
        self._there.clear()
