"""Memories forgotten: their rows leave the live database, after a backup, unless they changed meanwhile.

The caller commits the result, or proposes it; the deletion then reaches the other machines like any other.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from membridge.aio import threads
from membridge.aio.deadline import Deadline
from membridge.claudemem.connection import open_live
from membridge.commits.progress import ProgressTracker
from membridge.merge.former import Former, RawRows, RowKey
from membridge.merge.put_back import put_back
from membridge.snapshot import backups
from membridge.snapshot.lane import Lane

if TYPE_CHECKING:
    from collections.abc import Sequence

    from membridge.claudemem.search import Found


async def forget(
    lane: Lane, memories: "Sequence[Found]", *, progress: ProgressTracker, deadline: Deadline
) -> tuple[int, Path | None]:
    """Delete rows; return how many, and the backup that was made before, None where nothing was left to delete.

    Errors: those of the database and of `BeforeWrite`.
    """
    save = backups.BeforeWrite(lane, "forget", progress, deadline)
    with progress.step("forget"):
        done = await threads.run(_deleted, lane.database, memories, save, deadline)
    return done, save.path


def _deleted(live: Path, memories: "Sequence[Found]", save: backups.BeforeWrite, deadline: Deadline) -> int:
    with open_live(live, deadline=deadline) as connection:
        rows = RawRows(connection)
        # A row that gets its rowid until then is another one, by its mark.
        wanted: dict[RowKey, Former] = {
            (one.table, one.rowid): Former(one.table, one.rowid, None, rows.mark((one.table, one.rowid)))
            for one in memories
        }
    return put_back(live, wanted, save=save, deadline=deadline).rows
