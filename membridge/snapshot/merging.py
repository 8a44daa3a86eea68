"""Merge what a pull fetched into the live database, and make it the mirror.

In this order: killed between the two, the next pull merges once more. Loaded with the first merge, which a node that
leads and takes in no proposals never does.
"""

from contextlib import closing
from pathlib import Path

from membridge.aio.deadline import Deadline
from membridge.claudemem import durable
from membridge.claudemem.connection import open_frozen
from membridge.commits import fetch
from membridge.commits.fetch import Fetched
from membridge.commits.mirror import encoded
from membridge.errors import CorruptObjectError
from membridge.merge import snapshot, three_way
from membridge.merge.apply import Terms
from membridge.merge.memory_file import MemoryFile
from membridge.merge.report import MergeReport, Source
from membridge.snapshot import standing
from membridge.snapshot.backups import BeforeWrite
from membridge.snapshot.lane import Lane
from membridge.snapshot.standing import Comparing
from schemas.snapshot import SnapshotRecord


def merge_staged(
    lane: Lane, head: SnapshotRecord, fetched: Fetched, save: BeforeWrite, deadline: Deadline
) -> MergeReport:
    """Merge a state that lies beside the old mirror, everything compared, and make it the mirror."""
    if fetched.staged is None:
        raise ValueError("nothing is staged")
    compared = Comparing(lane, head.sha256)
    compared.begin(deadline)
    report = snapshot.merge_snapshot(
        lane.database,
        base=fetched.base,
        theirs=fetched.staged,
        source=lane.source(head.node, head.device_id),
        journal=lane.journal,
        deadline=deadline,
        save=save,
        compared=compared.found,
    )
    durable.force(lane.database)
    lane.mirror.adopt(fetched.staged, fetched.position)
    compared.moved()
    return report


def merge_deltas(
    lane: Lane, head: SnapshotRecord, fetched: Fetched, save: BeforeWrite, deadline: Deadline
) -> MergeReport:
    """Merge the rows that deltas bring, at the cost of these rows, and move the mirror on.

    The mirror takes them in in a transaction that ends after the merge; beside it the former state is read, the base.
    """
    path = lane.mirror.path()
    if path is None:
        raise CorruptObjectError(f"the mirror of {lane.name} is gone", remedy="run `membridge pull` again")
    with closing(MemoryFile(path, deadline=deadline)) as memory, open_frozen(path, deadline=deadline) as base:
        base.run("BEGIN")
        base.run("SELECT 1 FROM membridge_state")
        memory.begin()
        keys = fetch.keys_of(fetched, memory)
        with standing.looking(lane, deadline=deadline) as (_, seen):
            pass
        for name, some in seen.keys.items():
            keys.setdefault(name, set()).update(some)
        source = lane.source(head.node, head.device_id)
        report = snapshot.merge_keys(
            lane.database,
            memory.connection,
            base,
            keys,
            terms=Terms(source=source, decide=three_way.merge, journal=lane.journal, save=save),
            deadline=deadline,
        )
        durable.force(lane.database)
        memory.commit(encoded(fetched.position))
    lane.mirror.advance(fetched.position)
    standing.moved(lane, head.sha256, keys, since=seen.since)
    return report


def merge_file(lane: Lane, theirs: Path, source: Source, save: BeforeWrite, deadline: Deadline) -> MergeReport:
    """Merge a database that descends from nothing this node knows; the mirror stays."""
    return snapshot.merge_snapshot(
        lane.database,
        base=None,
        theirs=theirs,
        source=source,
        journal=lane.journal,
        deadline=deadline,
        save=save,
    )


def replace(lane: Lane, state: Path, source: Source, save: BeforeWrite, deadline: Deadline) -> MergeReport:
    """Make the live database's memory that of a state, and force it to the disk; the mirror stays."""
    report = snapshot.replace_snapshot(
        state, lane.database, source=source, journal=lane.journal, deadline=deadline, save=save
    )
    durable.force(lane.database)
    return report
