"""What `history`, `tag`, `verify` and `gc` print."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from membridge.cli import history, maintenance, units
from schemas.commits import (
    GcReply,
    HistoryReply,
    RowChanges,
    Tag,
    TagAct,
    TagAction,
    TagsReply,
    VerifyFinding,
    VerifyReply,
)
from schemas.identity import NodeId, canonical_id
from schemas.node import Finding
from schemas.snapshot import SnapshotKind, SnapshotObject, SnapshotRecord

PROJECT = canonical_id("claude-mem")
PI = NodeId("raspberrypi-4")


def before(seconds: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()


def record(seq: int) -> SnapshotRecord:
    return SnapshotRecord(
        project=PROJECT, seq=seq, epoch=3, parent_seq=seq - 1, kind=SnapshotKind.DELTA, sha256="0" * 64,
        object=SnapshotObject(key="k", sha256="0" * 64, size_bytes=88_123),
        rows={"a": 100, "b": 20_000}, node=PI, created_at=before(4000), nonce="n",
    )  # fmt: skip


def tag(name: str, seq: int) -> Tag:
    return Tag(project=PROJECT, name=name, seq=seq, sha256="0" * 64, node=PI, created_at=before(60))


def test_history_shows_what_each_commit_brought(printed: Callable[[], list[str]]) -> None:
    changes = [RowChanges(seq=12, tables={"a": 14, "b": -3}), RowChanges(seq=11)]
    newest, older = record(12), record(11)
    history.print_history(HistoryReply(records=[newest, older], changes=changes, tags=[tag("v1", 12)]))

    lines = printed()
    for line, shown, rest in zip(lines[2:], (newest, older), (["+14", "-3", "v1"], []), strict=True):
        when = units.when(shown.created_at, exact=True)
        assert line.split() == [str(shown.seq), when, "raspberrypi-4", "88.1", "KB", "20,100", *rest]


def test_a_change_is_told_from_none_and_from_one_that_is_not_known() -> None:
    assert history.describe_change(None) == history.describe_change(RowChanges(seq=1)) == ""
    assert history.describe_change(RowChanges(seq=1, tables={"a": 1200})) == "+1,200"
    assert history.describe_change(RowChanges(seq=1, tables={"a": -1})) == "-1"


def test_tags_are_listed_and_what_was_done_to_one_is_a_sentence(printed: Callable[[], list[str]]) -> None:
    reply = TagsReply(tags=[tag("v1", 12)])
    history.print_tags(reply, TagAction())
    history.print_tags(reply, TagAction(action=TagAct.SET, name="v1"))
    history.print_tags(reply, TagAction(action=TagAct.DELETE, name="v1"))

    lines = printed()
    assert lines[2].split() == ["v1", "12", units.when(reply.tags[0].created_at), "raspberrypi-4"]
    assert lines[3:] == ["tag v1 names snapshot 12", "tag v1 deleted; it named snapshot 12"]


def test_verify_says_what_is_broken_and_what_to_do(printed: Callable[[], list[str]]) -> None:
    finding = VerifyFinding(
        finding=Finding.FAIL,
        seq=7,
        what="object",
        detail=f"projects/{PROJECT}/snapshots/x.zst is missing",
        remedy="act",
    )
    maintenance.print_verified(VerifyReply(findings=[finding], records=9, chains=2, restored=6, objects=8, seconds=0.4))

    text = "\n".join(printed())
    assert "FAIL" in text
    assert "-> act" in text
    assert "1 failure" in text
    assert "9 snapshots in 2 chains, 6 restored and compared; 8 objects, 0 read (0 B) in" in text
    assert "all is well" not in text


def test_empty_lists_are_sentences(printed: Callable[[], list[str]]) -> None:
    history.print_history(HistoryReply())
    history.print_tags(TagsReply(), TagAction())
    maintenance.print_verified(VerifyReply(findings=[], records=2, chains=1))

    lines = printed()
    assert lines[:2] == [
        "no snapshot yet: `membridge push` makes the first",
        "no tag yet: `membridge tag NAME` names the head",
    ]
    assert lines[-1] == "all is well"


def test_gc_says_what_went_and_what_would_go() -> None:
    assert maintenance.describe_gc(GcReply(kept=1)) == "nothing to delete: 1 snapshot kept"
    reply = GcReply(kept=30, snapshots=5, orphans=1, freed_bytes=88_123, seqs=[1, 2, 3, 7, 9])
    assert maintenance.describe_gc(reply) == (
        "5 snapshots, 1 abandoned upload deleted (88.1 KB); 30 snapshots kept\nseq 1-3, 7, 9"
    )
    assert "2 old proposals would be deleted" in maintenance.describe_gc(GcReply(dry_run=True, proposals=2))
