"""Rollups: a pull reads few objects however long the chain is, and everything still holds where one is missing."""

import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from membridge.claudemem.memory import memory_rows
from membridge.commits import fetch, gc, heads, history, layout, materialize, rollups, verify
from membridge.commits.chain import ChainPolicy, Position
from membridge.commits.progress import ProgressTracker
from membridge.commits.replica import Replica
from membridge.commits.retention import SnapshotPolicy
from membridge.errors import ObjectMissingError, StoreUnavailableError
from membridge.objectstore.protocol import ObjectStore
from membridge.snapshot import push
from membridge.system import files
from membridge.testing.writer import write
from schemas.commits import GcReply, HistoryRequest, VerifyReply, VerifyRequest
from schemas.identity import Seq
from schemas.node import Finding
from schemas.snapshot import PushOutcome, PushReply, SnapshotKind, SnapshotRecord
from schemas.wire import encode
from tests.bench.commits import CountingStore
from tests.fixtures.databases import add_observation, execute
from tests.fixtures.lanes import Box, MakeBox, soon
from tests.fixtures.long_histories import write_history
from tests.fixtures.objects import content_of

SAMPLE = Path(__file__).parents[2] / "data" / "claude-mem-13.25.3.db"
MARKER = "marker-deleted-zyzzyva"
LONG = ChainPolicy(max_percent=10_000)
#: Keeps the newest state and what leads to it.
ONE = SnapshotPolicy(last=1, hourly=0, daily=0, weekly=0, recent=4)


def replica_of(box: Box, policy: SnapshotPolicy | None = None) -> Replica:
    lane = box.lane
    return Replica(
        project=lane.project, name=lane.name, node=lane.node, folder=lane.folder, store=lane.store, heads=lane.heads,
        retention=policy or SnapshotPolicy(),
    )  # fmt: skip


async def record_of(box: Box, seq: Seq) -> SnapshotRecord:
    return await heads.fetch_record(box.lane, seq, deadline=soon())


async def verified(box: Box) -> VerifyReply:
    return await verify.verify(box.lane, VerifyRequest(), progress=ProgressTracker(), deadline=soon())


async def collect(box: Box, policy: SnapshotPolicy) -> GcReply:
    return await gc.collect(replica_of(box, policy), dry_run=False, progress=ProgressTracker(), deadline=soon())


async def pushed(box: Box, until: Seq, store: ObjectStore | None = None) -> list[PushReply]:
    """Push new rows until the head is `until`."""
    lane = replace(box.lane, store=store or box.lane.store)
    replies: list[PushReply] = []
    while not replies or replies[-1].seq != until:
        write(str(box.database), 1, f"round-{len(replies)}-{until}")
        reply = await push.push(lane, epoch=1, allow_shrink=False, progress=ProgressTracker(), deadline=soon())
        assert reply.outcome is PushOutcome.COMMITTED
        replies.append(reply)
    return replies


async def with_commits(make_box: MakeBox, count: int) -> Box:
    box = make_box("a", chain=LONG)
    shutil.copyfile(SAMPLE, box.database)
    await pushed(box, count)
    return box


async def brought_up(box: Box, head: SnapshotRecord) -> Counter[str]:
    """Bring a node's mirror to `head`; return what it asked the store for."""
    store = CountingStore(box.lane.store)
    replica = replace(replica_of(box), store=store)
    fetched = await fetch.fetch(replica, head, progress=ProgressTracker(), deadline=soon())
    fetch.take(replica, fetched, deadline=soon())
    assert replica.mirror.position() == Position(head.seq, head.epoch, head.sha256)
    files.remove(fetch.work_folder(replica))
    return store.calls


async def test_pushes_make_them_and_pulls_use_them(make_box: MakeBox) -> None:
    box, behind = await with_commits(make_box, 5), make_box("behind")
    await behind.pull()
    await pushed(box, 66)
    starts = {seq: [one.after_seq for one in (await record_of(box, seq)).rollups] for seq in range(1, 67)}
    assert {seq: found for seq, found in starts.items() if found} == {
        8: [1], 16: [8], 24: [16], 32: [24], 40: [32], 48: [40], 56: [48], 64: [56, 1],
    }  # fmt: skip
    new = make_box("new")
    for other, most in ((new, 4), (behind, 13)):
        store = CountingStore(box.lane.store)
        await Box(replace(other.lane, store=store), []).pull()
        # Records and objects: the full, the rollup of 64 and two deltas; or three, seven rollups and two.
        assert store.calls["get"] <= 2 * most
        assert memory_rows(other.database) == memory_rows(box.database)
    reply = await verified(box)
    assert reply.findings == []
    assert (reply.restored, reply.objects) == (66, 66 + 9)
    assert reply.read_objects == reply.objects


async def test_of_a_long_chain_few_objects_are_read_and_few_are_kept(make_box: MakeBox) -> None:
    box = make_box("a")
    head = (await write_history(replica_of(box), SAMPLE, 1_030, deadline=soon())).record
    deltas = head.chain_bytes
    assert (await brought_up(make_box("new"), head))["get"] <= 2 * 20
    old = make_box("old")
    await brought_up(old, await record_of(box, 730))
    assert (await brought_up(old, head))["get"] <= 2 * 25
    assert (await verified(box)).findings == []
    before = {seq: await record_of(box, seq) for seq in (200, 512)}
    policy = SnapshotPolicy(last=1, hourly=0, daily=3, weekly=2, recent=100)
    done = await collect(box, policy)
    left = await heads.seqs(box.lane, deadline=soon())
    assert done.snapshots == 1_030 - len(left)
    assert len(left) < 200
    assert 200 not in left
    assert (await verified(box)).findings == []
    assert (await collect(box, policy)).snapshots == 0
    # History is read from the newest back, over the gaps.
    for limit, below in ((5, None), (150, 900), (500, None), (3, 2)):
        request = HistoryRequest(limit=limit, before=below)
        found = [record.seq for record in (await history.read(box.lane, request, deadline=soon())).records]
        assert found == [seq for seq in reversed(left) if below is None or seq < below][:limit]
    at = (await record_of(box, left[3])).created_at
    resolved = await history.resolve(box.lane, f"@{at}", deadline=soon())
    assert resolved is not None
    assert resolved.seq == left[3]
    # Nothing of what is left is larger than the deltas that it was made of.
    prefix = layout.snapshots(box.lane.project)
    sizes = [info.size_bytes async for info in box.lane.store.list(prefix, deadline=soon())]
    assert sum(sizes) < head.full_bytes + deltas
    assert (await brought_up(make_box("newer"), head))["get"] <= 2 * 20
    # A mirror whose commit is gone is the base of a merge all the same.
    away = make_box("away")
    position = Position(200, 1, before[200].sha256)
    await brought_up(away, before[512])
    staged = away.lane.mirror.path()
    assert staged is not None
    away.lane.mirror.advance(position)
    fetched = await fetch.fetch(replica_of(away), head, progress=ProgressTracker(), deadline=soon())
    assert fetched.base == staged
    assert fetched.staged is not None


async def test_every_state_that_is_left_is_the_one_that_was_committed(make_box: MakeBox, tmp_path: Path) -> None:
    box = make_box("a")
    await write_history(replica_of(box), SAMPLE, 150, per_day=30, deadline=soon())
    await collect(box, SnapshotPolicy(last=2, hourly=0, daily=3, weekly=1, recent=10))
    left = await heads.seqs(box.lane, deadline=soon())
    assert len(left) < 40
    for seq in left:
        record = await history.resolve(box.lane, str(seq), deadline=soon())
        assert record is not None
        # `build` compares the sums with those of the record.
        await materialize.build(box.lane, record, tmp_path, progress=ProgressTracker(), deadline=soon())


async def test_a_damaged_one_is_found_and_read_around(make_box: MakeBox) -> None:
    box = await with_commits(make_box, 20)
    rollup = (await record_of(box, 16)).rollups[0]
    body = bytearray(await box.lane.store.get(rollup.object.key, deadline=soon()))
    body[len(body) // 2] ^= 1
    await box.lane.store.put(rollup.object.key, bytes(body), if_absent=False, deadline=soon())
    reply = await verified(box)
    assert [(one.finding, one.seq, one.what) for one in reply.findings] == [(Finding.FAIL, 16, "object")]
    assert reply.restored == 20
    new = make_box("new")
    await new.pull()
    assert memory_rows(new.database) == memory_rows(box.database)
    await box.lane.store.delete(rollup.object.key, deadline=soon())
    newer = make_box("newer")
    await newer.pull()
    assert memory_rows(newer.database) == memory_rows(box.database)
    # Where the deltas are gone too, it is said and nothing is changed.
    await collect(box, ONE)
    with pytest.raises(ObjectMissingError, match=r"does not exist|no such object") as caught:
        await make_box("newest").pull()
    assert "recover --from mirror" in caught.value.remedy


async def test_one_that_leads_elsewhere_is_found(make_box: MakeBox) -> None:
    box = await with_commits(make_box, 17)
    record, other = await record_of(box, 16), await record_of(box, 8)
    # A sound stream, and not the one between these commits.
    wrong = msgspec.structs.replace(record.rollups[0], object=other.rollups[0].object)
    changed = msgspec.structs.replace(record, rollups=[wrong])
    await box.lane.store.put(layout.commit(box.lane.project, 16), encode(changed), if_absent=False, deadline=soon())
    reply = await verified(box)
    assert [(one.finding, one.seq, one.what) for one in reply.findings] == [(Finding.FAIL, 16, "object")]
    assert "made for another state" in reply.findings[0].detail
    new = make_box("new")
    await new.pull()
    assert memory_rows(new.database) == memory_rows(box.database)


class Unreadable(CountingStore):
    """A store that loses every download, or every upload of a rollup, while `broken`."""

    lost: Callable[[str], bool]

    async def download(self, key: str, target: Path, **options: object) -> None:
        if self.lost(f"get {key}"):
            raise StoreUnavailableError("the store does not answer", remedy="try again")
        await super().download(key, target, **options)  # pyright: ignore[reportArgumentType]

    async def upload(self, key: str, source: Path, **options: object) -> None:
        if self.lost(f"put {key}"):
            raise StoreUnavailableError("the store does not answer", remedy="try again")
        await super().upload(key, source, **options)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("lost", ["get", "put"])
async def test_a_push_whose_rollup_fails_commits_all_the_same(make_box: MakeBox, lost: str) -> None:
    box = await with_commits(make_box, 7)
    store = Unreadable(box.lane.store)
    store.lost = lambda call: call.startswith(lost) and (lost == "get" or ".after-" in call)
    await pushed(box, 16, store)
    assert [len((await record_of(box, seq)).rollups) for seq in (8, 16)] == [0, 0]
    assert not list(box.lane.mirror.directory.glob("*.part"))
    # The next ones are made of what there is.
    await pushed(box, 64)
    starts = [rollup.after_seq for rollup in (await record_of(box, 64)).rollups]
    assert starts == [56, 1]
    new = make_box("new")
    await new.pull()
    assert memory_rows(new.database) == memory_rows(box.database)
    assert (await verified(box)).findings == []


async def test_an_empty_commit_in_its_place_is_made_up_for(make_box: MakeBox) -> None:
    box = await with_commits(make_box, 7)
    moved = await push.commit_epoch(box.lane, epoch=2, deadline=soon())
    assert moved is not None
    assert (moved.record.seq, moved.record.kind) == (8, SnapshotKind.EMPTY)
    write(str(box.database), 1, "after")
    assert (await box.push(epoch=2)).seq == 9
    assert [one.after_seq for one in (await record_of(box, 9)).rollups] == [1]
    new = make_box("new")
    await new.pull()
    assert memory_rows(new.database) == memory_rows(box.database)
    assert (await verified(box)).findings == []


async def test_deltas_that_are_large_are_not_joined(make_box: MakeBox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollups, "MOST_BYTES", 1_000)
    box = await with_commits(make_box, 17)
    assert [(await record_of(box, seq)).rollups for seq in (8, 16)] == [[], []]
    assert (await verified(box)).findings == []


async def test_what_was_deleted_is_in_none_of_them_and_goes_with_the_deltas(make_box: MakeBox) -> None:
    box = await with_commits(make_box, 2)
    add_observation(box.database, MARKER)
    await pushed(box, 4)
    execute(box.database, f"DELETE FROM observations WHERE title = '{MARKER}'")
    await pushed(box, 20)
    holding = [key for key, body in (await objects(box)).items() if MARKER.encode() in body]
    # The delta that brought it, the one that took it away does not have its content.
    assert [layout.seq_of_snapshot(key) for key in holding] == [3]
    await collect(box, ONE)
    assert not [key for key, body in (await objects(box)).items() if MARKER.encode() in body]
    assert (await verified(box)).findings == []


async def objects(box: Box) -> dict[str, bytes]:
    """Return the content of each object of the project, decompressed."""
    found: dict[str, bytes] = {}
    async for info in box.lane.store.list(layout.snapshots(box.lane.project), deadline=soon()):
        raw = await box.lane.store.get(info.key, deadline=soon())
        found[info.key] = content_of(raw)
    return found
