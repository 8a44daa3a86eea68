"""The epoch of the coordinator that schedules: it grows with each tenure, and an older tenure commits nothing more."""

from contextlib import AbstractAsyncContextManager

from sqlalchemy import select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from membridge.aio.deadline import Deadline
from membridge.errors import UnavailableError
from services.coordinator.store.statements import STATEMENTS
from services.coordinator.store.tables import scheduling
from services.database.engine import to_its_end, unavailable
from services.database.group_commit import GroupCommit, open_group_commit
from services.database.writer import Fence

#: Seconds that taking the next epoch may take.
BEGIN_SECONDS = 30.0
_NAME = "tasks"


async def begin_tenure(engine: AsyncEngine) -> int:
    """Take the next epoch and return it; from now on the database refuses the writes of every older tenure."""
    try:
        return await to_its_end(_next_epoch(engine))
    except (SQLAlchemyError, OSError) as error:
        raise unavailable(engine.url, error) from error


def group_commit_of(engine: AsyncEngine, epoch: int) -> AbstractAsyncContextManager[GroupCommit]:
    """Open the writer of the tenure that has this epoch."""
    fenced = UnavailableError("another coordinator schedules now", remedy="try again")
    fence = Fence(scheduling, {"name": _NAME, "epoch": epoch}, fenced)
    return open_group_commit(engine, fence=fence, statements=STATEMENTS)


async def _next_epoch(engine: AsyncEngine) -> int:
    async with Deadline.after(BEGIN_SECONDS).scope("beginning a tenure"), engine.begin() as connection:
        moved = update(scheduling).where(scheduling.c.name == _NAME).values(epoch=scheduling.c.epoch + 1)
        if (await connection.execute(moved)).rowcount != 1:
            await connection.execute(scheduling.insert().values(name=_NAME, epoch=1))
        epoch = await connection.scalar(select(scheduling.c.epoch).where(scheduling.c.name == _NAME))
    return int(epoch or 0)
