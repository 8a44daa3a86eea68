"""What `history`, `backups` and `conflicts` print."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from membridge.cli import journal
from schemas.identity import NodeId, canonical_id
from schemas.proposal import Conflict, ConflictSide, ConflictsReply
from schemas.snapshot import Backup, BackupsReply, HistoryReply, SnapshotKind, SnapshotObject, SnapshotRecord

PROJECT = canonical_id("claude-mem")
PI, LAPTOP = NodeId("raspberrypi-4"), NodeId("laptop")


def before(seconds: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()


def test_history_shows_what_each_commit_brought(printed: Callable[[], list[str]]) -> None:
    record = SnapshotRecord(
        project=PROJECT, seq=12, epoch=3, parent_seq=11, kind=SnapshotKind.DELTA, sha256="0" * 64, page_size=4096,
        page_count=20, object=SnapshotObject(key="k", sha256="0" * 64, size_bytes=88_123),
        rows={"a": 100, "b": 20_000}, node=PI, created_at=before(4000), nonce="n",
    )  # fmt: skip

    journal.print_history(HistoryReply(records=[record]))

    assert printed()[2].split() == ["12", "1", "h", "ago", "delta", "raspberrypi-4", "3", "88.1", "KB", "20,100"]


def test_a_backup_shows_its_whole_path(printed: Callable[[], list[str]]) -> None:
    path = "/var/lib/membridge/projects/d6b6dd7bdf7b55f6/backups/20260101T010101-before-pull.db"

    journal.print_backups(
        BackupsReply(backups=[Backup(path=path, size_bytes=53_000_000, created_at=before(90_000), reason="pull")])
    )

    lines = printed()
    assert lines[2].split()[-1] + "".join(line.strip() for line in lines[3:]) == path


def test_a_conflict_shows_both_sides_on_one_line(printed: Callable[[], list[str]]) -> None:
    conflict = Conflict(
        id=3, table="observations", key=["0c9cbd7e-7a94-4c2b-9c2c-0123456789ab", 1_760_000_000_000, "a\nlong title"],
        kept=ConflictSide(origin="raspberrypi-4", row={}), lost=ConflictSide(origin="laptop", row=None), at=before(50),
    )  # fmt: skip

    journal.print_conflicts(ConflictsReply(conflicts=[conflict]))

    lines = printed()
    assert lines[2].startswith(" 3  50 s ago  observations  0c9cbd7e")
    assert lines[2].endswith("raspberrypi-4  laptop (deleted)")


def test_an_empty_list_is_a_sentence(printed: Callable[[], list[str]]) -> None:
    journal.print_history(HistoryReply())
    journal.print_backups(BackupsReply())
    journal.print_conflicts(ConflictsReply())

    assert printed() == [
        "no snapshot yet: `membridge push` makes the first",
        "no backup yet",
        "no conflict so far",
    ]
