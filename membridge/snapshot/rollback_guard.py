"""The rollback guard: notices that the live database went back in time, and gets its rows back.

Rows that such a database lacks must not reach other nodes as deletions. After each push and pull the guard notes the
marks of `claudemem.marks`; it compares them before the next one and again before anything leaves this node, because a
file may be replaced while the node runs. It notes only what is on the disk: a power cut never goes behind the note.
"""

import msgspec

from membridge.aio import threads
from membridge.aio.deadline import Deadline
from membridge.claudemem import durable, marks
from membridge.claudemem.marks import Marks
from membridge.commits.progress import ProgressTracker
from membridge.errors import HeadMovedError
from membridge.snapshot import pull
from membridge.snapshot.lane import Lane
from membridge.system import files
from membridge.system.logging import get_logger

log = get_logger("membridge.snapshot")


async def heal(lane: Lane, *, progress: ProgressTracker, deadline: Deadline) -> bool:
    """Give a database that went back what the head has, and delete nothing; return whether that was needed.

    Errors: those of `pull`. Killed halfway, the mirror is gone and the next pull does the same.
    """
    if not await threads.run(_forgets, lane, deadline):
        return False
    return await pull.pull_if_any(lane, progress=progress, deadline=deadline) is not None


async def check(lane: Lane, *, deadline: Deadline) -> None:
    """Check that the live database did not go back before it was read just now.

    Raises HeadMovedError when it did; the next push or pull gets the rows back.
    """
    if await threads.run(_forgets, lane, deadline):
        raise HeadMovedError(
            f"the database {lane.database} was replaced by an earlier state while it was read",
            remedy="run the command again: it takes what is missing from the newest snapshot",
        )


async def note(lane: Lane, *, anew: bool = False, deadline: Deadline) -> None:
    """Note where the live database stands now; one that is behind the last note keeps it, unless `anew`."""
    await threads.run(_note, lane, deadline, anew=anew)


def _forgets(lane: Lane, deadline: Deadline) -> bool:
    """Forget the mirror of a database that went back; return whether it did.

    Without a mirror a merge has no base, and without a base nothing counts as deleted. So the mirror that is gone is
    also the reminder that the rows are still to be fetched.
    """
    if not lane.database.exists():
        return False
    _, sign = marks.look(lane.database, _noted(lane), deadline=deadline)
    if sign:
        log.warning("live database went back in time", database=str(lane.database), sign=sign)
        lane.mirror.forget()
        _note(lane, deadline, anew=True)
    return bool(sign)


def _note(lane: Lane, deadline: Deadline, *, anew: bool) -> None:
    if not lane.database.exists():
        return
    before = _noted(lane)
    now, sign = marks.look(lane.database, before, deadline=deadline)
    if now == before or (sign and not anew):
        return
    durable.force(lane.database)
    files.save(lane.marks, msgspec.json.encode(now))


def _noted(lane: Lane) -> Marks:
    try:
        return msgspec.json.decode(lane.marks.read_bytes(), type=Marks)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return Marks()
