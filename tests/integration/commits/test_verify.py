"""Verify: silent about what is sound, exact about what is broken, and it leaves nothing behind."""

import shutil
from pathlib import Path

import msgspec
import pytest

from membridge.commits import heads, layout, verify
from membridge.commits.chain import ChainPolicy
from membridge.commits.progress import ProgressTracker
from membridge.errors import NotFoundError
from membridge.snapshot import push
from membridge.testing.writer import write
from schemas.commits import VerifyReply, VerifyRequest
from schemas.identity import Seq
from schemas.node import Finding
from schemas.snapshot import Head, SnapshotRecord
from schemas.wire import encode
from tests.fixtures.lanes import Box, MakeBox, soon

SAMPLE = Path(__file__).parents[2] / "data" / "claude-mem-13.25.3.db"


async def with_two_chains(make_box: MakeBox) -> Box:
    """Give a node that committed 1 full, 2 and 3 deltas, 4 full, 5 delta, 6 empty."""
    box = make_box("a", chain=ChainPolicy(max_deltas=2, max_percent=10_000))
    shutil.copyfile(SAMPLE, box.database)
    await box.push()
    for number in range(4):
        write(str(box.database), 2, f"round-{number}")
        await box.push()
    await push.commit_epoch(box.lane, epoch=2, deadline=soon())
    return box


async def record_of(box: Box, seq: Seq) -> SnapshotRecord:
    return await heads.fetch_record(box.lane, seq, deadline=soon())


async def look(box: Box, **request: int) -> VerifyReply:
    reply = await verify.verify(box.lane, VerifyRequest(**request), progress=ProgressTracker(), deadline=soon())
    assert list(box.lane.folder.glob("scratch-*")) == []
    return reply


def said(reply: VerifyReply) -> list[tuple[Finding, Seq, str]]:
    return [(one.finding, one.seq, one.what) for one in reply.findings]


async def test_a_sound_memory_is_restored_as_a_whole_and_nothing_is_found(make_box: MakeBox) -> None:
    box = await with_two_chains(make_box)
    reply = await look(box)
    assert (reply.findings, reply.head_seq, reply.records, reply.chains) == ([], 6, 6, 2)
    assert (reply.restored, reply.objects, reply.read_objects) == (6, 5, 5)
    assert (await look(box, seq=2)).restored == 2
    sampled = await look(box, sample=2)
    assert (sampled.records, sampled.read_objects, sampled.restored) == (6, 2, 0)
    with pytest.raises(NotFoundError, match="no snapshot 40"):
        await look(box, seq=40)


@pytest.mark.parametrize("damage", ["flipped", "missing", "cut", "exchanged"])
async def test_a_damaged_object_is_named_with_what_builds_on_it(make_box: MakeBox, damage: str) -> None:
    box = await with_two_chains(make_box)
    stored = (await record_of(box, 2)).object
    assert stored is not None
    body = bytearray(await box.lane.store.get(stored.key, deadline=soon()))
    await box.lane.store.delete(stored.key, deadline=soon())
    if damage == "flipped":
        body[len(body) // 2] ^= 1
    if damage == "exchanged":
        body = body[::-1]
    if damage != "missing":
        await box.lane.store.put(stored.key, bytes(body[:-1] if damage == "cut" else body), deadline=soon())
    reply = await look(box)
    assert said(reply)[:1] == [(Finding.FAIL, 2, "object")]
    assert (Finding.FAIL, 3, "chain") in said(reply)
    assert {seq for _, seq, _ in said(reply)} == {2, 3}
    # The other chain is whole, and so is the start of this one.
    assert reply.restored == 4


async def test_a_missing_record_breaks_only_its_chain(make_box: MakeBox) -> None:
    box = await with_two_chains(make_box)
    await box.lane.store.delete(layout.commit(box.lane.project, 2), deadline=soon())
    reply = await look(box)
    assert said(reply) == [(Finding.FAIL, 3, "chain")]
    assert "seq 2, is missing" in reply.findings[0].detail


async def test_a_record_that_lies_about_its_database_is_found(make_box: MakeBox) -> None:
    box = await with_two_chains(make_box)
    for seq, changes in ((3, {"sha256": "e" * 64}), (5, {"epoch": 0})):
        changed = msgspec.structs.replace(await record_of(box, seq), **changes)
        key = layout.commit(box.lane.project, seq)
        await box.lane.store.put(key, encode(changed), if_absent=False, deadline=soon())
    found = said(await look(box))
    assert (Finding.FAIL, 3, "restore") in found
    assert (Finding.FAIL, 5, "chain") in found


async def test_a_record_that_cannot_be_read_is_one_finding(make_box: MakeBox) -> None:
    box = await with_two_chains(make_box)
    await box.lane.store.put(layout.commit(box.lane.project, 1), b"{", if_absent=False, deadline=soon())
    found = said(await look(box))
    assert (Finding.FAIL, 1, "record") in found
    assert (Finding.FAIL, 2, "chain") in found


async def test_the_head_is_compared_in_both_stores(make_box: MakeBox) -> None:
    box = await with_two_chains(make_box)
    head, project = await record_of(box, 6), box.lane.project
    await box.lane.heads.put(project, Head(record=await record_of(box, 5)), deadline=soon())
    assert said(await look(box)) == [(Finding.WARN, 6, "head")]
    await box.lane.heads.delete(project, deadline=soon())
    assert said(await look(box)) == [(Finding.WARN, 6, "head")]
    other = msgspec.structs.replace(head, nonce="other")
    await box.lane.heads.put(project, Head(record=other), deadline=soon())
    assert said(await look(box)) == [(Finding.FAIL, 6, "head")]
    await box.lane.store.delete(layout.commit(project, 6), deadline=soon())
    assert said(await look(box)) == [(Finding.FAIL, 6, "head")]


async def test_a_project_without_a_snapshot_is_sound(make_box: MakeBox) -> None:
    reply = await look(make_box("a"))
    assert (reply.findings, reply.records, reply.head_seq) == ([], 0, 0)
