"""Pull: bring this node's memory up to the head, and merge it into the live database.

The old mirror is the base of the merge and stays until the merge is done; killed at any point, the next pull does the
same again and finds most of it done. Deltas cost what they bring; a whole state is compared with everything. The live
database is written to by `membridge.merge` alone, after a backup, which is taken when the head is there and verified,
and only where the merge has something to write.
"""

from contextlib import nullcontext, suppress
from pathlib import Path

import msgspec

from membridge.aio import threads
from membridge.aio.deadline import Deadline
from membridge.claudemem import database
from membridge.commits import chain, fetch, heads
from membridge.commits.chain import Position
from membridge.commits.fetch import Fetched
from membridge.commits.progress import ProgressTracker
from membridge.errors import (
    CorruptObjectError,
    DatabaseCorruptError,
    HeadMovedError,
    MembridgeError,
    NotFoundError,
)
from membridge.merge import install
from membridge.merge.report import MergeReport, Source
from membridge.snapshot import backups, legacy
from membridge.snapshot.backups import BeforeWrite
from membridge.snapshot.lane import Lane
from membridge.system import files
from schemas.snapshot import PullOutcome, PullReply, SnapshotRecord


async def pull(lane: Lane, *, replace: bool, progress: ProgressTracker, deadline: Deadline) -> PullReply:
    """Merge the head into the live database, install it where there is none, or replace the database by it.

    Errors: NotFoundError for a project without a snapshot, CorruptObjectError, DatabaseBusyError, DiskFullError, the
    store's and the bus' errors; the live database and the mirror are then as before.
    """
    await threads.run(install.sweep, lane.database)
    with progress.step("head"):
        known = await heads.read(lane, deadline=deadline)
    if known is None:
        return await _import_legacy(lane, progress=progress, deadline=deadline)
    head = known.record
    position = lane.mirror.position()
    current = position == Position(head.seq, head.epoch, head.sha256)
    if current and not replace and await threads.run(lane.database.is_file):
        return PullReply(outcome=PullOutcome.UNCHANGED, seq=head.seq)
    return await bring_up(lane, head, replace=replace, progress=progress, deadline=deadline)


async def pull_if_any(lane: Lane, *, progress: ProgressTracker, deadline: Deadline) -> PullReply | None:
    """Merge the head; return None for a project that no node has pushed yet. Errors: as `pull`."""
    try:
        return await pull(lane, replace=False, progress=progress, deadline=deadline)
    except NotFoundError:
        if await heads.read(lane, deadline=deadline) is not None:
            # The store has lost what the head is made of.
            raise
        return None


async def bring_up(
    lane: Lane, head: SnapshotRecord, *, replace: bool = False, progress: ProgressTracker, deadline: Deadline
) -> PullReply:
    """Fetch `head`, take it into the live database, and make it the mirror. Errors as `pull`.

    To `replace` a damaged database is to install one in its place; the damaged one is kept under another name, and
    DatabaseBusyError says which program has it open.
    """
    _check_forward(lane, head)
    damaged = False
    if await threads.run(lane.database.exists):
        # Said before anything is fetched, which a later try would fetch again.
        try:
            look = database.quick_check if replace else database.look
            await threads.run(look, lane.database, deadline=deadline)
        except DatabaseCorruptError:
            if not replace:
                raise
            damaged = True
    save = backups.BeforeWrite(lane, "replace" if replace else "merge", progress, deadline)
    await threads.run(lane.mirror.settle, deadline=deadline)
    try:
        whole = replace or not await threads.run(lane.database.exists)
        fetched = await fetch.fetch(lane, head, whole=whole, progress=progress, deadline=deadline)
        aside = await threads.run(_set_aside, lane.database) if damaged else None
        try:
            outcome, report = await _take_in(
                lane, head, fetched, save, replace=replace, progress=progress, deadline=deadline
            )
        except CorruptObjectError:
            if fetched.staged is not None:
                raise
            # Either the mirror or a delta is damaged: to begin with the full snapshot shows which.
            fetched = await fetch.fetch(lane, head, anew=True, progress=progress, deadline=deadline)
            outcome, report = await _take_in(
                lane, head, fetched, save, replace=replace, progress=progress, deadline=deadline
            )
    finally:
        await threads.run(_clear, lane)
    reply = _reply(outcome, head, report, fetched, save.path)
    return msgspec.structs.replace(reply, set_aside=str(aside)) if aside else reply


async def _take_in(  # noqa: PLR0913 - what a merge needs, and what every long work takes
    lane: Lane,
    head: SnapshotRecord,
    fetched: Fetched,
    save: BeforeWrite,
    *,
    replace: bool,
    progress: ProgressTracker,
    deadline: Deadline,
) -> tuple[PullOutcome, MergeReport]:
    """Take what was fetched into the live database and the mirror.

    The mirror must never know of a row that a power cut can still take from the database: it would look deleted.
    """
    there = await threads.run(lane.database.exists)
    if there and not replace:
        from membridge.snapshot import merging  # noqa: PLC0415 - most of a merge: loaded with the first one

        with progress.step("merge"):
            merge = merging.merge_staged if fetched.staged is not None else merging.merge_deltas
            return PullOutcome.MERGED, await threads.run(merge, lane, head, fetched, save, deadline)
    state = fetched.staged or await threads.run(lane.mirror.path)
    if state is None:
        raise CorruptObjectError(f"the mirror of {lane.name} is gone", remedy="run `membridge pull` again")
    source = lane.source(head.node, head.device_id)
    if not there:
        with progress.step("install"):
            await threads.run(_install, lane, state, fetched, source, deadline)
        outcome, report = PullOutcome.INSTALLED, MergeReport(inserted=sum(head.rows.values()))
    else:
        from membridge.snapshot import merging  # noqa: PLC0415 - as above

        with progress.step("replace"):
            report = await threads.run(merging.replace, lane, state, source, save, deadline)
        outcome = PullOutcome.REPLACED
    await threads.run(fetch.take, lane, fetched, deadline=deadline)
    return outcome, report


def _set_aside(path: Path) -> Path:
    from membridge.claudemem import overwrite  # noqa: PLC0415 - rarely needed: a node keeps what it loads

    return overwrite.set_aside(path)


def _install(lane: Lane, state: Path, fetched: Fetched, source: Source, deadline: Deadline) -> None:
    # What becomes the mirror next reaches the disk while the database is built of it.
    forced = threads.beside(files.force, fetched.staged) if fetched.staged is not None else nullcontext()
    with forced:
        install.install(state, lane.database, source=source, deadline=deadline)
    # Another database than the one that was noted: what counts is where this one stands.
    files.discard(lane.marks)


def _clear(lane: Lane) -> None:
    """Delete what was fetched and did not become the mirror: it is large, and the next pull fetches it again.

    A failure is ignored: it would take the place of what ended the pull, a cancellation too.
    """
    with suppress(OSError, MembridgeError):
        files.remove(fetch.work_folder(lane))
    with suppress(OSError, MembridgeError):
        lane.mirror.sweep()


def _check_forward(lane: Lane, head: SnapshotRecord) -> None:
    """Refuse a head that is behind the mirror: a store that lost its commits must not delete our rows."""
    position = lane.mirror.position()
    if position is not None and chain.went_back(head, position):
        raise HeadMovedError(
            f"the newest snapshot of {lane.name} was {position.seq} and is now {head.seq}: a store lost data",
            remedy="this node's memory is untouched; on the primary run `membridge recover --from mirror`",
        )


async def _import_legacy(lane: Lane, *, progress: ProgressTracker, deadline: Deadline) -> PullReply:
    staged = (await threads.run(lane.mirror.stage)).with_name("legacy.db")
    with progress.step("download"):
        found = await legacy.fetch(lane, staged, progress=progress, deadline=deadline)
    if not found:
        raise NotFoundError(
            f"project {lane.name} has no snapshot yet",
            remedy="run `membridge push` on the machine that has the memory, or check the project's name",
        )
    source = lane.source(lane.node, legacy.DEVICE)
    try:
        if not await threads.run(lane.database.exists):
            await threads.run(install.install, staged, lane.database, source=source, deadline=deadline)
            await threads.run(files.discard, lane.marks)
            return PullReply(outcome=PullOutcome.INSTALLED, inserted=found.rows, downloaded_bytes=found.size_bytes)
        from membridge.snapshot import merging  # noqa: PLC0415 - as above

        save = backups.BeforeWrite(lane, "merge", progress, deadline)
        report = await threads.run(merging.merge_file, lane, staged, source, save, deadline)
    finally:
        await threads.run(staged.unlink, missing_ok=True)
    return PullReply(
        outcome=PullOutcome.MERGED,
        inserted=report.inserted,
        updated=report.updated,
        conflicts=report.conflicts,
        unsynced=report.unsynced,
        downloaded_bytes=found.size_bytes,
        backup=str(save.path) if save.path else None,
    )


def _reply(
    outcome: PullOutcome, head: SnapshotRecord, report: MergeReport, fetched: Fetched, backup: Path | None
) -> PullReply:
    return PullReply(
        outcome=outcome,
        seq=head.seq,
        inserted=report.inserted,
        updated=report.updated,
        deleted=report.deleted,
        conflicts=report.conflicts,
        unsynced=report.unsynced,
        downloaded_bytes=fetched.downloaded_bytes,
        backup=str(backup) if backup else None,
    )
