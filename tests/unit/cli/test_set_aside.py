"""What `backups` and `conflicts` print."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import msgspec

from membridge.cli import restore, set_aside, units
from schemas.commits import RestoreBackupReply, TableDiff
from schemas.identity import NodeId, canonical_id
from schemas.proposal import Conflict, ConflictSide, ConflictsReply
from schemas.snapshot import Backup, BackupsReply

PROJECT = canonical_id("claude-mem")
PI, LAPTOP = NodeId("raspberrypi-4"), NodeId("laptop")


def before(seconds: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()


def test_a_backup_shows_its_id_and_the_folder_its_path(printed: Callable[[], list[str]]) -> None:
    name, folder = "20260101T010101.000000Z-merge", "/var/lib/membridge/projects/d6b6dd7bdf7b55f6/backups"
    taken = Backup(
        id=name, path=f"{folder}/{name}.db", size_bytes=53_000_000, created_at=before(90_000), reason="merge"
    )

    rows = msgspec.structs.replace(taken, path=f"{folder}/{name}.undo", size_bytes=5_700, full_copy=False, rows=29)
    restore.print_backups(BackupsReply(backups=[taken, rows]))

    lines = printed()
    assert lines[2].startswith(name)
    assert lines[2].split()[-4:] == ["full", "copy", "53.0", "MB"]
    assert lines[3].split()[-4:] == ["29", "rows", "5.7", "KB"]
    assert f"in {folder}" in lines
    assert lines[-1] == "`membridge backups restore ID` restores one."


def test_a_backup_put_back_says_what_changes_and_where_the_damaged_one_is(printed: Callable[[], list[str]]) -> None:
    found = [TableDiff(table="observations", came=170, went=3)]
    restore.print_backup_preview(
        RestoreBackupReply(backup="one", damage="/x.db is damaged: SQLite cannot open it", tables=found)
    )
    lines = printed()
    assert lines[0] == "/x.db is damaged: SQLite cannot open it"
    assert lines[6].split() == ["observations", "170", "3"]
    done = RestoreBackupReply(
        applied=True,
        backup="one",
        tables=found,
        saved="/saved.db",
        set_aside="/x.db.damaged-1",
        open_in=["bun (pid 7)"],
    )  # fmt: skip
    said = restore.describe_backup_restored(done)
    assert said.startswith("the database is that of backup one (170 back, 3 removed)")
    for part in ("what was there: saved\n", "kept as /x.db.damaged-1", "restart bun (pid 7)", "run `membridge pull`"):
        assert part in said


def test_writes_that_are_taken_back_are_counted_with_the_rows_that_stay(printed: Callable[[], list[str]]) -> None:
    found = [TableDiff(table="observations", came=1, went=3, kept=2)]
    restore.print_backup_preview(RestoreBackupReply(backup="one", tables=found, writes=4))
    lines = printed()
    assert "Membridge's last 4 writes would be taken back." in lines
    assert "Rows that only claude-mem wrote stay as they are." in lines
    said = restore.describe_backup_restored(RestoreBackupReply(applied=True, backup="one", tables=found, writes=4))
    assert said.startswith(
        "4 writes taken back, to backup one (1 back, 3 removed)\nRows that only claude-mem wrote stay"
    )
    assert "left as they are: 2 rows that claude-mem changed or refers to" in said


def test_a_conflict_shows_both_sides_on_one_line(printed: Callable[[], list[str]]) -> None:
    conflict = Conflict(
        id=3, table="observations", key=["0c9cbd7e-7a94-4c2b-9c2c-0123456789ab", 1_760_000_000_000, "a\nlong title"],
        kept=ConflictSide(origin="raspberrypi-4", row={}), lost=ConflictSide(origin="laptop", row=None), at=before(50),
    )  # fmt: skip

    set_aside.print_conflicts(ConflictsReply(conflicts=[conflict]))

    lines = printed()
    assert lines[2].startswith(f" 3  {units.when(conflict.at)}  observations  0")
    assert lines[2].endswith("raspberrypi-4  laptop (deleted)")


def test_an_empty_list_is_a_sentence(printed: Callable[[], list[str]]) -> None:
    restore.print_backups(BackupsReply())
    set_aside.print_conflicts(ConflictsReply())

    assert printed() == [
        "no backup yet",
        "no conflict so far",
    ]
