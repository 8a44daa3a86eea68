"""Rollups: objects that hold what many commits changed together, so that a long chain is read in few steps.

The primary makes them with a commit whose number is a multiple of 8, 64, 512 and so on; the commit's record names them.
So they are fenced, found, encrypted, collected and verified as the commit's own object is: a push that is killed, or
loses the race, leaves orphans, which gc deletes. A rollup that cannot be made is left out: the commit stands without
it, and readers take narrower steps.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from membridge.aio import threads
from membridge.aio.deadline import Deadline
from membridge.commits import chain, heads, layout, rebuild
from membridge.commits.chain import Descent
from membridge.commits.replica import Replica
from membridge.errors import CorruptObjectError, MembridgeError
from membridge.merge.row_stream import MalformedStreamError, decode, encode
from membridge.system import files
from membridge.system.logging import get_logger
from schemas.identity import Seq
from schemas.snapshot import Rollup, SnapshotKind, SnapshotObject, SnapshotRecord

log = get_logger("membridge.commits")

#: Seconds that a commit waits for its rollups.
PATIENCE = 20.0
#: Compressed bytes that are joined, which bounds the memory that it takes; and objects of which a rollup is made. Where
#: deltas are larger than that, their number is not what a pull waits for.
MOST_BYTES, MOST_PARTS = 2 << 20, 64


@dataclass(frozen=True, slots=True)
class _Part:
    """A delta or rollup of the new commit on this disk: the commit where it begins, and its bytes."""

    begins: SnapshotRecord
    path: Path
    size_bytes: int


async def make(
    replica: Replica, head: SnapshotRecord, seq: Seq, delta: Path, size_bytes: int, *, deadline: Deadline
) -> list[Rollup]:
    """Make and store the rollups of the commit `seq`, whose `delta` builds on `head`; return those that succeeded.

    Never fails a push: what is not made is only logged.
    """
    made: list[Rollup] = []
    if not any(seq // width > head.seq // width for width in chain.WIDTHS) and head.kind is not SnapshotKind.EMPTY:
        return made
    folder = replica.mirror.directory / "rollups.part"
    try:
        await _make(replica, seq, _Part(head, delta, size_bytes), folder, made, deadline=deadline.sooner(PATIENCE))
    except MembridgeError as error:
        log.info("rollup not made", project=replica.name, seq=seq, reason=error.message)
    finally:
        await threads.run(files.discard, folder)
    return made


async def _make(
    replica: Replica, seq: Seq, part: _Part, folder: Path, made: list[Rollup], *, deadline: Deadline
) -> None:
    full = part.begins.full_seq
    before = await _before(replica, part.begins, deadline=deadline)
    for width in chain.WIDTHS:
        if seq // width == before // width:
            return
        floor = max((seq // width - 1) * width, full)
        records = await heads.lineage(replica, part.begins, floor, deadline=deadline)
        way = chain.descent(part.begins, floor, records)
        sizes = [step.object.size_bytes for step in way.steps if step.object is not None]
        if sum(sizes, part.size_bytes) > MOST_BYTES or len(sizes) > MOST_PARTS:
            return
        if not sizes:
            continue
        await threads.run(files.fresh_folder, folder / f"{width}")
        part = await _joined(replica, way, part, folder / f"{width}", deadline=deadline)
        made.append(await _stored(replica, part, seq, deadline=deadline))


async def _before(replica: Replica, head: SnapshotRecord, *, deadline: Deadline) -> Seq:
    """Return the newest commit that could have rollups: an empty one has none, so the next one makes up for it."""
    while head.kind is SnapshotKind.EMPTY:
        head = await heads.fetch_record(replica, head.parent_seq, deadline=deadline)
    return head.seq


async def _joined(replica: Replica, way: Descent, last: _Part, folder: Path, *, deadline: Deadline) -> _Part:
    objects = [step.object for step in way.steps if step.object is not None]
    await rebuild.download(replica, objects, folder, deadline=deadline)
    target = folder / "rollup"
    try:
        size = await threads.run(_join, [*(folder / one.sha256 for one in objects), last.path], target)
    except MalformedStreamError as error:
        raise CorruptObjectError(f"commits since {way.begins.seq} cannot be joined: {error}") from error
    return _Part(way.begins, target, size)


def _join(parts: Sequence[Path], target: Path) -> int:
    from membridge.merge import row_rollup  # noqa: PLC0415 - rarely needed: a node keeps what it loads

    with files.translated(target):
        joined = row_rollup.join(decode(rebuild.chunks_of(path)) for path in parts)
        with target.open("wb") as file:
            return sum(file.write(chunk) for chunk in encode(joined))


async def _stored(replica: Replica, part: _Part, seq: Seq, *, deadline: Deadline) -> Rollup:
    key = layout.rollup(replica.project, seq, part.begins.seq, secrets.token_hex(8))
    sha256 = await threads.run(files.sha256_of, part.path)
    await replica.store.upload(key, part.path, deadline=deadline)
    stored = SnapshotObject(key=key, sha256=sha256, size_bytes=part.size_bytes)
    return Rollup(after_seq=part.begins.seq, after_sha256=part.begins.sha256, object=stored)
