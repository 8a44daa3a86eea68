"""Recover: one head in both stores again, after one of them lost its memory, or both did.

NATS alone lost: the newest record in the object store is the head. The object store lost, or part of it: a full
snapshot of a mirror, or of a live database, becomes the head under the next unused number.
"""

from membridge.aio.deadline import Deadline
from membridge.commits import chain, heads, verify
from membridge.commits.progress import ProgressTracker
from membridge.errors import (
    CorruptObjectError,
    EncryptionKeyError,
    InvalidRequestError,
    NotFoundError,
    RefusedError,
)
from membridge.snapshot import push
from membridge.snapshot.lane import Lane
from schemas.commits import RecoverReply, RecoverRequest, RecoverySource, VerifyRequest
from schemas.identity import Epoch, Seq
from schemas.node import Finding


async def recover(
    lane: Lane, request: RecoverRequest, *, epoch: Epoch | None, progress: ProgressTracker, deadline: Deadline
) -> RecoverReply:
    """Make the stores agree on a head, from the source of `request`; `epoch` is this node's, None without roles.

    A preview only returns what is lost. Errors: RefusedError when nothing is, NotFoundError and RefusedError when
    another source is needed, those of `push_full`.
    """
    source = request.source
    if source is RecoverySource.STORE:
        if request.preview:
            raise InvalidRequestError("recovering from the object store has no preview, as it changes no row")
        with progress.step("head"):
            return await _from_store(lane, deadline=deadline)
    lost = await _lost(lane, progress=progress, deadline=deadline)
    if request.preview:
        return RecoverReply(source=source, seq=_mirrored(lane), epoch=epoch or 0, lost=lost)
    if epoch is None:
        epoch = await _next_epoch(lane, deadline=deadline)
    from_mirror = source is RecoverySource.MIRROR
    pushed = await push.push_full(lane, from_mirror=from_mirror, epoch=epoch, progress=progress, deadline=deadline)
    return RecoverReply(
        source=source,
        seq=pushed.seq or 0,
        epoch=epoch,
        committed=True,
        rows=pushed.rows,
        lost=lost,
        uploaded_bytes=pushed.uploaded_bytes,
    )


async def _lost(lane: Lane, *, progress: ProgressTracker, deadline: Deadline) -> str:
    """Return what of the newest snapshot the stores have lost, in words.

    Reads the snapshot as a node would that needs it. Raises RefusedError when it is whole.
    """
    try:
        known = await heads.read(lane, deadline=deadline)
        if known is None:
            return "neither NATS nor the object store has a snapshot"
        last = lane.mirror.last()
        if chain.went_back(known.record, last and last[0]):
            return f"snapshots {known.record.seq + 1} to {_mirrored(lane)}, which this node's mirror has seen"
        found = await verify.verify(lane, VerifyRequest(seq=known.record.seq), progress=progress, deadline=deadline)
    except (CorruptObjectError, EncryptionKeyError) as error:
        return error.message
    # A record beyond the head is a warning, also where it cannot be read; it may have been the newest once.
    gone = [one for one in found.findings if one.finding is Finding.FAIL or one.what == "record"]
    if gone:
        return f"snapshot {gone[-1].seq or known.record.seq}: {gone[-1].detail}"
    whole = f"nothing is lost: the object store has all of snapshot {known.record.seq}, the newest"
    if known.revision == 0:
        raise RefusedError(f"{whole}; only NATS has lost its name", remedy="run `membridge recover --from store`")
    raise RefusedError(whole, remedy="to send what this machine has, run `membridge push`")


def _mirrored(lane: Lane) -> Seq:
    last = lane.mirror.last()
    return last[0].seq if last else 0


async def _from_store(lane: Lane, *, deadline: Deadline) -> RecoverReply:
    before = await lane.heads.get(lane.project, deadline=deadline)
    known = await heads.settle(lane, deadline=deadline)
    if known is None:
        raise NotFoundError(
            f"the object store has no snapshot of {lane.name}", remedy="run `membridge recover --from mirror`"
        )
    if not known.stored:
        raise RefusedError(
            f"the object store has lost snapshot {known.record.seq}, which NATS names as the newest",
            remedy="run `membridge recover --from mirror`",
        )
    rebuilt = before is None or before.revision != known.revision
    head = known.record
    return RecoverReply(
        source=RecoverySource.STORE, seq=head.seq, epoch=head.epoch, rebuilt=rebuilt, rows=sum(head.rows.values())
    )


async def _next_epoch(lane: Lane, *, deadline: Deadline) -> Epoch:
    known, last = await heads.read(lane, deadline=deadline), lane.mirror.last()
    return 1 + max(known.record.epoch if known else 0, last[0].epoch if last else 0)
