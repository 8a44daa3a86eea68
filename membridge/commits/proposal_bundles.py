"""Rows for a project's primary: stored as an object, announced on the work queue, and read again by the primary.

Needs no live database: any process may propose rows that it compared with a materialized state.
"""

import hashlib
import secrets
from collections.abc import Iterable, Iterator
from contextlib import suppress

import msgspec
import zstandard

from membridge.aio import threads
from membridge.aio.deadline import Deadline
from membridge.bus.connection import Bus
from membridge.commits import layout
from membridge.commits.replica import Replica
from membridge.errors import CorruptObjectError, ObjectExistsError
from membridge.system import clock
from schemas import subjects
from schemas.proposal import ProposalAnnouncement, ProposalBundle, ProposedRow
from schemas.wire import encode

#: Rows of one bundle, and the bytes of their JSON.
MAX_ROWS = 2_000
MAX_BYTES = 16 << 20
#: The largest single row that travels plus what JSON adds.
MAX_BUNDLE_BYTES = MAX_BYTES + (16 << 20)

_BUNDLE = msgspec.json.Decoder(ProposalBundle)


def batches(rows: Iterable[ProposedRow]) -> Iterator[list[ProposedRow]]:
    """Cut rows into lists that each fit into a bundle."""
    batch: list[ProposedRow] = []
    size = 0
    for row in rows:
        weight = len(msgspec.json.encode(row))
        if batch and (len(batch) >= MAX_ROWS or size + weight > MAX_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(row)
        size += weight
    if batch:
        yield batch


async def store(
    replica: Replica, rows: list[ProposedRow], *, device_id: str | None, deadline: Deadline
) -> ProposalAnnouncement:
    """Store one batch of rows as a bundle of this node and return what to announce. Errors: the store's."""
    body, sha256 = await threads.run(_pack, replica, rows, device_id)
    key = layout.proposal(replica.project, replica.node, sha256[:32])
    # The key is the sum of the rows: an object under it was stored before and perhaps never announced.
    with suppress(ObjectExistsError):
        await replica.store.put(key, body, deadline=deadline)
    return ProposalAnnouncement(
        id=sha256[:32],
        project=replica.project,
        node=replica.node,
        key=key,
        sha256=sha256,
        size_bytes=len(body),
        rows=len(rows),
        submitted_at=clock.stamp(),
    )


async def announce(bus: Bus, announcement: ProposalAnnouncement, *, deadline: Deadline) -> None:
    """Put an announcement into the project's work queue, where its primary takes it. Errors: the bus'."""
    subject = subjects.fill(subjects.PROPOSAL, project=announcement.project, node=announcement.node)
    # A fresh id for each announcement: de-duplication is stream-wide, a known id could be burnt by another.
    message_id = f"{announcement.id}.{secrets.token_hex(8)}"
    await bus.stream_publish(subject, encode(announcement), message_id=message_id, deadline=deadline)


async def fetch(replica: Replica, announcement: ProposalAnnouncement, *, deadline: Deadline) -> ProposalBundle:
    """Return the rows of an announced proposal.

    Errors: ObjectMissingError, CorruptObjectError when the object is not what was announced or names another project
    or node.
    """
    expected = layout.proposal(replica.project, announcement.node, announcement.id)
    if announcement.key != expected or announcement.project != replica.project:
        raise CorruptObjectError(
            f"proposal {announcement.id} of node {announcement.node} names an object that is not its own", remedy=""
        )
    body = await replica.store.get(announcement.key, deadline=deadline)
    return await threads.run(_unpack, announcement, body)


def _pack(replica: Replica, rows: list[ProposedRow], device_id: str | None) -> tuple[bytes, str]:
    position = replica.mirror.position()
    bundle = ProposalBundle(
        project=replica.project,
        node=replica.node,
        device_id=device_id,
        base_seq=position.seq if position else 0,
        rows=rows,
    )
    body = zstandard.ZstdCompressor(level=9).compress(msgspec.json.encode(bundle))
    return body, hashlib.sha256(body).hexdigest()


def _unpack(announcement: ProposalAnnouncement, body: bytes) -> ProposalBundle:
    what = f"proposal {announcement.id} of node {announcement.node}"
    if hashlib.sha256(body).hexdigest() != announcement.sha256:
        raise CorruptObjectError(f"{what} is damaged: its sha256 is not the announced one", remedy="")
    try:
        with zstandard.ZstdDecompressor().stream_reader(body) as reader:
            content = reader.read(MAX_BUNDLE_BYTES + 1)
        if len(content) > MAX_BUNDLE_BYTES:
            raise CorruptObjectError(f"{what} is larger than {MAX_BUNDLE_BYTES} bytes", remedy="")
        bundle = _BUNDLE.decode(content)
    except (zstandard.ZstdError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptObjectError(f"{what} cannot be read: {error}", remedy="") from error
    if bundle.node != announcement.node or bundle.project != announcement.project:
        raise CorruptObjectError(f"{what} claims to be from node {bundle.node}", remedy="")
    return bundle
