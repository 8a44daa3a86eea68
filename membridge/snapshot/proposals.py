"""Proposals: the rows that a secondary has and the canonical memory lacks, offered to the primary.

A secondary stores them as a bundle and announces it on the work queue; an offline primary gets it later. The secondary
remembers the sums of announced rows, so that it does not send a growing backlog again and again. It forgets them after
an hour, and when the queue was made anew. Merging a proposal twice changes nothing.
"""

import hashlib
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import msgspec

from membridge.aio import threads
from membridge.aio.deadline import Deadline
from membridge.claudemem import database
from membridge.commits import proposal_bundles
from membridge.commits.progress import ProgressTracker
from membridge.errors import ShrinkRefusedError
from membridge.merge.memory_file import MemoryFile
from membridge.merge.report import MergeReport
from membridge.snapshot import rollback_guard, standing
from membridge.snapshot.backups import BeforeWrite
from membridge.snapshot.lane import Lane
from membridge.system import clock, files
from schemas.events import ProposalMerged, ProposalSubmitted
from schemas.proposal import ProposalAnnouncement, ProposedRow

#: Seconds after which rows that are still not canonical are offered again.
RESUBMIT_AFTER = 3_600.0


class Submitted(msgspec.Struct, frozen=True):
    """Rows that this node announced to the queue born as `queue`: the sum of each, and when, in Unix seconds."""

    rows: dict[str, float] = {}
    queue: str = ""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A stored bundle to announce, the sums of its rows, and the birth of the queue to announce it in."""

    announcement: ProposalAnnouncement
    sums: tuple[str, ...]
    queue: str


async def prepare(
    lane: Lane, *, queue: str, allow_shrink: bool, progress: ProgressTracker, deadline: Deadline
) -> list[Prepared]:
    """Store the rows that the canonical memory lacks and that `queue` did not get lately; return the announcements.

    Announcing is the caller's; `remember` comes after it. Errors: ShrinkRefusedError when more rows would be deleted
    from the canonical memory than the bound allows, the database's and the store's errors.
    """
    with progress.step("compare"):
        rows = await threads.run(standing.proposable, lane, deadline=deadline)
    if not allow_shrink:
        await rollback_guard.check(lane, deadline=deadline)
        await threads.run(_check_shrink, lane, rows, deadline)
    fresh = await threads.run(_not_submitted, lane, rows, queue)
    prepared: list[Prepared] = []
    for batch in proposal_bundles.batches(fresh):
        with progress.step("upload"):
            device_id = await threads.run(database.device_id, lane.database)
            announcement = await proposal_bundles.store(lane, batch, device_id=device_id, deadline=deadline)
            prepared.append(Prepared(announcement, tuple(map(_sum, batch)), queue))
            progress.advance(sum(len(one.sums) for one in prepared), len(fresh))
    return prepared


async def remember(lane: Lane, announced: Prepared) -> None:
    """Note the rows that were announced, and publish the event."""
    await threads.run(_note, lane, announced)
    await lane.announce(
        ProposalSubmitted(
            project=lane.project,
            node=lane.node,
            at=announced.announcement.submitted_at,
            proposal_id=announced.announcement.id,
            rows=announced.announcement.rows,
        )
    )


async def take_in(
    lane: Lane,
    announcement: ProposalAnnouncement,
    *,
    allow_shrink: bool = False,
    progress: ProgressTracker,
    deadline: Deadline,
) -> MergeReport:
    """Merge an announced proposal into the live database; where both changed a row, ours stays.

    The caller commits a snapshot before it acknowledges. Errors: those of `proposal_bundles.fetch` and of the database,
    ShrinkRefusedError.
    """
    with progress.step("download"):
        bundle = await proposal_bundles.fetch(lane, announcement, deadline=deadline)
    if not allow_shrink:
        await threads.run(_check_shrink, lane, bundle.rows, deadline)
    from membridge.merge.proposal import merge_proposal  # noqa: PLC0415 - most of a merge: loaded with the first one

    with progress.step("merge"):
        save = BeforeWrite(lane, "proposal", progress, deadline)
        report = await threads.run(
            merge_proposal, lane.database, bundle, journal=lane.journal, deadline=deadline, save=save
        )
    await lane.announce(
        ProposalMerged(
            project=lane.project,
            node=lane.node,
            at=clock.stamp(),
            proposal_id=announcement.id,
            inserted=report.inserted,
            updated=report.updated,
            deleted=report.deleted,
            conflicts=report.conflicts,
        )
    )
    return report


def _check_shrink(lane: Lane, rows: list[ProposedRow], deadline: Deadline) -> None:
    mirror, position = lane.mirror.path(), lane.mirror.position()
    deletions = sum(row.row is None for row in rows)
    if not deletions or mirror is None or position is None:
        return
    with closing(MemoryFile(mirror, deadline=deadline)) as memory:
        before = sum(memory.rows().values())
    if deletions * 100 > before * lane.policy.shrink_percent:
        raise ShrinkRefusedError(
            f"{deletions} of the {before} rows of {lane.name} would be deleted: "
            f"more than {lane.policy.shrink_percent:g} %",
            remedy=f"to get them back run `membridge restore --seq {position.seq}` on the node that lacks them; "
            "if they were deleted on purpose, `membridge push --allow-shrink`",
        )


def _sum(row: ProposedRow) -> str:
    return hashlib.sha256(msgspec.json.encode(row)).hexdigest()[:24]


def _submitted_path(lane: Lane) -> Path:
    return lane.folder / "submitted.json"


def _load(lane: Lane, queue: str) -> Submitted:
    try:
        known = msgspec.json.decode(_submitted_path(lane).read_bytes(), type=Submitted)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        # Lost or damaged: everything is offered once more, which changes nothing.
        return Submitted()
    return known if known.queue == queue else Submitted()


def _not_submitted(lane: Lane, rows: list[ProposedRow], queue: str) -> list[ProposedRow]:
    now, known = clock.now().timestamp(), _load(lane, queue).rows
    # abs: a wall clock that was set back must not silence a row for ever.
    return [row for row in rows if abs(now - known.get(_sum(row), 0.0)) > RESUBMIT_AFTER]


def _note(lane: Lane, announced: Prepared) -> None:
    now = clock.now().timestamp()
    recent = {key: at for key, at in _load(lane, announced.queue).rows.items() if abs(now - at) <= RESUBMIT_AFTER}
    recent.update(dict.fromkeys(announced.sums, now))
    files.save(_submitted_path(lane), msgspec.json.encode(Submitted(rows=recent, queue=announced.queue)))
