"""What a process without a live database does with a replica: follow, materialize, compare, verify, propose."""

from contextlib import aclosing
from pathlib import Path

import msgspec
import pytest

from membridge.bus.connection import Bus
from membridge.bus.kv import Kv
from membridge.bus.streams import WorkQueue, open_proposals
from membridge.bus.watch import watch
from membridge.claudemem.memory import memory_rows
from membridge.commits import fetch, heads, materialize, proposal_bundles, verify
from membridge.commits.progress import ProgressTracker
from membridge.commits.replica import Replica
from membridge.errors import CorruptObjectError
from membridge.merge import collect
from membridge.objectstore.protocol import ObjectStore
from membridge.snapshot import proposals
from membridge.testing.writer import write
from schemas.commits import VerifyRequest
from schemas.identity import NodeId, Seq, canonical_id
from schemas.proposal import ProposalAnnouncement, ProposedRow
from schemas.snapshot import Head
from schemas.wire import decode
from tests.fixtures.histories import change, counted, diff, state, with_history
from tests.fixtures.lanes import PROJECT, MakeBox, soon


@pytest.fixture
def replica(tmp_path: Path, lane_store: ObjectStore, heads_bucket: Kv[Head]) -> Replica:
    """The project as a process without a live database sees it."""
    folder = tmp_path / "hub"
    folder.mkdir()
    return Replica(
        project=canonical_id(PROJECT),
        name=PROJECT,
        node=NodeId("hub"),
        folder=folder,
        store=lane_store,
        heads=heads_bucket,
    )


async def follow(replica: Replica) -> Seq:
    """Bring the replica's mirror to the head and return its number."""
    known = await heads.read(replica, deadline=soon())
    assert known is not None
    fetched = await fetch.fetch(replica, known.record, progress=ProgressTracker(), deadline=soon())
    fetch.take(replica, fetched, deadline=soon())
    return known.record.seq


async def proposed(replica: Replica) -> list[ProposedRow]:
    """Write three observations and delete one in a database made of the head; return what that changed."""
    head = await state(replica, "head")
    work = await materialize.extract(replica, head, progress=ProgressTracker(), deadline=soon())
    canonical = replica.mirror.path()
    assert canonical is not None
    write(str(work), 3, "hub")
    change(work, "DELETE FROM observations WHERE id = 20")
    return collect.collect(work, canonical, deadline=soon())


async def next_announcement(queue: WorkQueue) -> ProposalAnnouncement:
    """Return what the primary takes from the queue next."""
    while not (deliveries := await queue.fetch(wait=5.0)):
        pass
    return decode(deliveries[0].message.body, ProposalAnnouncement)


async def test_it_follows_the_head(make_box: MakeBox, replica: Replica) -> None:
    box, memories = await with_history(make_box)
    async with aclosing(watch(replica.heads, replica.project)) as changes:
        assert (entry := (await anext(changes)).entry) is not None
        assert entry.value.record.seq == await follow(replica) == 5
        mirror = replica.mirror.path()
        assert mirror is not None
        assert memory_rows(mirror) == memories[5]
        write(str(box.database), 1, "sixth")
        await box.push()
        assert (entry := (await anext(changes)).entry) is not None
        assert entry.value.record.seq == await follow(replica) == 6
    mirror = replica.mirror.path()
    assert mirror is not None
    assert memory_rows(mirror) == memory_rows(box.database)


async def test_it_reads_compares_and_verifies_every_state(make_box: MakeBox, replica: Replica) -> None:
    _, memories = await with_history(make_box)
    for seq in range(1, 6):
        record = await state(replica, seq)
        path = await materialize.build(replica, record, replica.folder, progress=ProgressTracker(), deadline=soon())
        assert memory_rows(path) == memories[seq]
    assert counted(await diff(replica, 2, 3)) == {"observations": (0, 3, 0)}
    found = await verify.verify(replica, VerifyRequest(), progress=ProgressTracker(), deadline=soon())
    assert (found.findings, found.head_seq, found.restored) == ([], 5, 5)


async def test_the_primary_takes_in_what_it_proposes(make_box: MakeBox, replica: Replica, bus: Bus) -> None:
    box, _ = await with_history(make_box)
    before = memory_rows(box.database)["observations"]
    await follow(replica)
    queue = await open_proposals(bus, replica.project, deadline=soon())
    rows = await proposed(replica)
    for batch in proposal_bundles.batches(rows):
        announcement = await proposal_bundles.store(replica, batch, device_id=None, deadline=soon())
        await proposal_bundles.announce(bus, announcement, deadline=soon())
    received = await next_announcement(queue)
    assert (received.node, received.rows) == ("hub", len(rows))
    report = await proposals.take_in(box.lane, received, progress=ProgressTracker(), deadline=soon())
    assert (report.inserted, report.deleted) == (4, 1)
    after = memory_rows(box.database)["observations"]
    assert (len(after - before), len(before - after)) == (3, 1)
    await box.push()
    assert await follow(replica) == 6
    mirror = replica.mirror.path()
    assert mirror is not None
    assert memory_rows(mirror) == memory_rows(box.database)


async def test_a_bundle_under_another_name_is_refused(make_box: MakeBox, replica: Replica) -> None:
    await with_history(make_box)
    await follow(replica)
    made = await proposal_bundles.store(replica, await proposed(replica), device_id=None, deadline=soon())
    for forged in ({"node": "b"}, {"sha256": "0" * 64}, {"key": f"{made.key}x"}):
        with pytest.raises(CorruptObjectError):
            await proposal_bundles.fetch(replica, msgspec.structs.replace(made, **forged), deadline=soon())
