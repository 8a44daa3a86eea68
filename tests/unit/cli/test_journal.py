"""What `backups` and `conflicts` print."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from membridge.cli import journal, units
from schemas.identity import NodeId, canonical_id
from schemas.proposal import Conflict, ConflictSide, ConflictsReply
from schemas.snapshot import Backup, BackupsReply

PROJECT = canonical_id("claude-mem")
PI, LAPTOP = NodeId("raspberrypi-4"), NodeId("laptop")


def before(seconds: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()


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
    assert lines[2].startswith(f" 3  {units.when(conflict.at)}  observations  0")
    assert lines[2].endswith("raspberrypi-4  laptop (deleted)")


def test_an_empty_list_is_a_sentence(printed: Callable[[], list[str]]) -> None:
    journal.print_backups(BackupsReply())
    journal.print_conflicts(ConflictsReply())

    assert printed() == [
        "no backup yet",
        "no conflict so far",
    ]
