"""Whether the live database went back in time: a power cut, a damaged WAL or an old file put in its place.

SQLite never gives an id of these tables twice, and notes the highest one; a deletion leaves the note as it is. A note
that is lower than it was is no deletion, and what is missing must not be told to other nodes as deleted.
"""

import msgspec

from membridge import blocking
from membridge.claudemem.connection import open_live
from membridge.deadline import Deadline
from membridge.errors import NotFoundError
from membridge.logging import get_logger
from membridge.snapshot import files, pull
from membridge.snapshot.lane import Lane
from membridge.snapshot.steps import Steps

log = get_logger("membridge.snapshot")

_FILE = "high-water.json"


async def heal(lane: Lane, *, steps: Steps, deadline: Deadline) -> bool:
    """Give a database that went back what the head has, and delete nothing; return whether that was needed.

    Errors: those of `pull`. Killed halfway, the mirror is gone and the next pull does the same.
    """
    before, now = await blocking.run(_noted, lane), await blocking.run(_marks, lane, deadline)
    gone = sorted(table for table, mark in now.items() if mark < before.get(table, 0))
    if now and gone:
        log.warning("live database went back in time", database=str(lane.database), table=", ".join(gone))
        # Without a mirror there is no base, and without a base nothing counts as deleted.
        await blocking.run(lane.mirror.forget)
        try:
            await pull.pull(lane, replace=False, steps=steps, deadline=deadline)
        except NotFoundError:
            # Nobody has pushed this project yet.
            return False
    return bool(gone)


async def note(lane: Lane, *, deadline: Deadline) -> None:
    """Note how high the ids of the live database are now."""
    now = await blocking.run(_marks, lane, deadline)
    if now and now != await blocking.run(_noted, lane):
        await blocking.run(files.save, lane.folder / _FILE, msgspec.json.encode(now))


def _noted(lane: Lane) -> dict[str, int]:
    try:
        return msgspec.json.decode((lane.folder / _FILE).read_bytes(), type=dict[str, int])
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return {}


def _marks(lane: Lane, deadline: Deadline) -> dict[str, int]:
    if not lane.database.exists():
        return {}
    with open_live(lane.database, deadline=deadline) as connection:
        rows = connection.rows("SELECT name, seq FROM sqlite_sequence")
    return {str(name): seq for name, seq in rows if isinstance(seq, int)}
