"""Tombstones of pruned commits: seq, epoch, sha256.

A node that was offline for long finds its mirror's commit here and so knows that the head descends from its mirror:
rows that the head lacks were deleted. One object holds a block of seqs.
"""

from collections.abc import Iterable, Mapping

from membridge.aio.deadline import Deadline
from membridge.commits import layout
from membridge.commits.chain import Position
from membridge.commits.replica import Replica
from membridge.errors import CorruptObjectError, ObjectMissingError
from schemas.commits import Ancestors
from schemas.identity import Seq
from schemas.snapshot import SnapshotRecord
from schemas.wire import WireError, decode, encode

#: Commits of one object, about 40 KB.
BLOCK = 512


async def find(replica: Replica, seq: Seq, *, deadline: Deadline) -> Position | None:
    """Return the tombstone of `seq`, None when there is none."""
    return (await read(replica, [seq], deadline=deadline)).get(seq)


async def read(replica: Replica, seqs: Iterable[Seq], *, deadline: Deadline) -> dict[Seq, Position]:
    """Return the tombstones of `seqs`. Errors: CorruptObjectError, the store's."""
    wanted = set(seqs)
    found: dict[Seq, Position] = {}
    for block in sorted({seq // BLOCK for seq in wanted}):
        found |= await _block(replica, block, deadline=deadline)
    return {seq: commit for seq, commit in found.items() if seq in wanted}


async def remember(replica: Replica, records: Mapping[Seq, SnapshotRecord], *, deadline: Deadline) -> None:
    """Write tombstones of `records`, before these are deleted. Idempotent."""
    for block in sorted({seq // BLOCK for seq in records}):
        known = await _block(replica, block, deadline=deadline)
        new = {
            seq: Position(seq, record.epoch, record.sha256)
            for seq, record in records.items()
            if seq // BLOCK == block and seq not in known
        }
        if new:
            await _write(replica, block, known | new, deadline=deadline)


async def _block(replica: Replica, block: int, *, deadline: Deadline) -> dict[Seq, Position]:
    key = layout.pruned(replica.project, block)
    try:
        held = decode(await replica.store.get(key, deadline=deadline), Ancestors)
    except ObjectMissingError:
        return {}
    except WireError as error:
        raise CorruptObjectError(f"object {key} cannot be read: {error}", remedy="delete it from the store") from error
    return {
        seq: Position(seq, epoch, sha256)
        for seq, epoch, sha256 in zip(held.seqs, held.epochs, held.sha256, strict=False)
    }


async def _write(replica: Replica, block: int, commits: Mapping[Seq, Position], *, deadline: Deadline) -> None:
    ordered = [commits[seq] for seq in sorted(commits)]
    held = Ancestors(
        project=replica.project,
        seqs=[commit.seq for commit in ordered],
        epochs=[commit.epoch for commit in ordered],
        sha256=[commit.sha256 for commit in ordered],
    )
    await replica.store.put(layout.pruned(replica.project, block), encode(held), if_absent=False, deadline=deadline)
