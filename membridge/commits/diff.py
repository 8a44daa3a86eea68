"""What became of the memory between two commits."""

from membridge.aio import threads
from membridge.aio.deadline import Deadline
from membridge.commits import materialize
from membridge.commits.progress import ProgressTracker
from membridge.commits.replica import Replica
from membridge.commits.temp_dir import temp_dir
from membridge.merge import compare
from membridge.merge.compare import Comparison
from schemas.snapshot import SnapshotRecord


async def diff(
    replica: Replica,
    older: SnapshotRecord | None,
    newer: SnapshotRecord | None,
    *,
    limit: int,
    progress: ProgressTracker,
    deadline: Deadline,
) -> Comparison:
    """Compare two states and name the first `limit` rows; None is an empty memory. Errors: as `materialize.build`."""
    if (older.sha256 if older else None) == (newer.sha256 if newer else None):
        return Comparison()
    async with temp_dir(replica) as folder:
        paths = [
            None
            if record is None
            else await materialize.build(replica, record, folder, progress=progress, deadline=deadline)
            for record in (older, newer)
        ]
        with progress.step("compare"):
            return await threads.run(compare.compare, paths[0], paths[1], limit=limit, deadline=deadline)
