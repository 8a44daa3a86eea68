"""Recover: one head in both stores again, after one of them lost its memory, or both did.

NATS alone lost: the newest record in the object store is the head. The object store lost, or part of it: a full
snapshot of a mirror, or of a live database, becomes the head under the next number that nobody has seen.
"""

from membridge.deadline import Deadline
from membridge.errors import NotFoundError, RefusedError
from membridge.snapshot import heads, push
from membridge.snapshot.lane import Lane
from membridge.snapshot.steps import Steps
from schemas.history import RecoverReply, RecoverySource
from schemas.identity import Epoch


async def recover(
    lane: Lane, source: RecoverySource, *, epoch: Epoch | None, steps: Steps, deadline: Deadline
) -> RecoverReply:
    """Make the stores agree on a head, from `source`; `epoch` is this node's, None where there are no roles.

    Errors: NotFoundError and RefusedError when another source is the one to recover from, those of `push_full`.
    """
    if source is RecoverySource.STORE:
        with steps.step("head"):
            return await _from_store(lane, deadline=deadline)
    if epoch is None:
        epoch = await _next_epoch(lane, deadline=deadline)
    from_mirror = source is RecoverySource.MIRROR
    pushed = await push.push_full(lane, from_mirror=from_mirror, epoch=epoch, steps=steps, deadline=deadline)
    return RecoverReply(
        source=source,
        seq=pushed.seq or 0,
        epoch=epoch,
        committed=True,
        rows=pushed.rows,
        uploaded_bytes=pushed.uploaded_bytes,
    )


async def _from_store(lane: Lane, *, deadline: Deadline) -> RecoverReply:
    before = await lane.heads.get(lane.project, deadline=deadline)
    known = await heads.settle(lane, deadline=deadline)
    if known is None:
        raise NotFoundError(
            f"the object store has no snapshot of {lane.name}", remedy="`membridge recover --from mirror`"
        )
    if not known.stored:
        raise RefusedError(
            f"the object store has no record of seq {known.record.seq}, which NATS names as the head",
            remedy="`membridge recover --from mirror`",
        )
    rebuilt = before is None or before.revision != known.revision
    head = known.record
    return RecoverReply(
        source=RecoverySource.STORE, seq=head.seq, epoch=head.epoch, rebuilt=rebuilt, rows=sum(head.rows.values())
    )


async def _next_epoch(lane: Lane, *, deadline: Deadline) -> Epoch:
    known, position = await heads.read(lane, deadline=deadline), lane.mirror.position()
    return 1 + max(known.record.epoch if known else 0, position.epoch if position else 0)
