"""What `diff`, `restore` and `recover` print, and how a file is put in its place."""

from collections.abc import Callable
from pathlib import Path

import click
import pytest

from membridge.cli import history, maintenance, restore
from membridge.errors import ConflictError, MembridgeError
from schemas.commits import DiffReply, RecoverReply, RecoverySource, RestoreReply, RowChange, RowDiff, TableDiff


def test_diff_counts_all_rows_and_names_some(printed: Callable[[], list[str]]) -> None:
    rows = [
        RowDiff(table="observations", change=RowChange.CAME, title="The lease is renewed"),
        RowDiff(table="observations", change=RowChange.CHANGED, title="An edit\x1b[2J", columns=["subtitle", "facts"]),
        RowDiff(table="user_prompts", change=RowChange.WENT, title="x" * 119 + "…"),
    ]
    found = [TableDiff(table="observations", came=1200, changed=1), TableDiff(table="user_prompts", went=3)]
    history.print_diff(DiffReply(older_seq=1, newer_seq=9, tables=found, rows=rows, listed_all=False))

    lines = printed()
    assert lines[2].split() == ["observations", "1,200", "1"]
    assert "+  observations  The lease is renewed" in lines
    assert "~  observations  An edit?[2J (subtitle, facts)" in lines
    assert lines[-1] == "and 1,201 rows more; `--limit` shows more of them"


def test_equal_states_are_a_sentence(printed: Callable[[], list[str]]) -> None:
    history.print_diff(DiffReply(older_seq=3, newer_seq=4))
    assert printed() == ["snapshots 3 and 4 hold the same memory"]


def test_restore_says_what_would_change_and_what_did(printed: Callable[[], list[str]]) -> None:
    found = [TableDiff(table="observations", came=200, went=4, kept=1)]
    rows = [RowDiff(table="observations", change=RowChange.KEPT, title="of this machine alone")]
    restore.print_preview(RestoreReply(state_seq=3, head_seq=9, tables=found, rows=rows, unsynced=1, commits=True))
    lines = printed()
    assert lines[0] == "what restoring snapshot 3 changes in this machine's database:"
    assert lines[4].split() == ["observations", "200", "4", "1"]
    assert "kept  observations  of this machine alone" in [" ".join(line.split("   ")) for line in lines]
    assert "kept: 1 row that no snapshot has" in lines
    assert "… and more rows; the counts above are complete" not in lines
    restore.print_preview(RestoreReply(state_seq=3, head_seq=9, tables=found, rows=rows, listed_all=False))
    assert printed()[-1] == "… and more rows; the counts above are complete"
    done = RestoreReply(
        applied=True, state_seq=3, head_seq=9, seq=10, commits=True, tables=found, unsynced=1, backup="/b"
    )
    assert restore.describe_restored(done) == (
        "the database is that of snapshot 3 again (200 back, 4 removed); committed as snapshot 10\n"
        "kept: 1 row that no snapshot had\nbackup: b"
    )
    same = RestoreReply(applied=True, state_seq=9, head_seq=9, seq=9)
    assert "(no row changed); snapshot 9 stays the newest" in restore.describe_restored(same)


def test_exactly_one_state_is_named() -> None:
    assert restore.chosen(7, None, None) == "7"
    assert restore.chosen(None, None, "v1") == "v1"
    assert restore.chosen(None, "2026-01-31T18:00:00+02:00", None).startswith("@2026-01-31T")
    for given in ((None, None, None), (7, None, "v1")):
        with pytest.raises(click.UsageError, match="choose one state"):
            restore.chosen(*given)
    with pytest.raises(click.BadParameter, match="is not a time"):
        restore.chosen(None, "yesterday", None)


def test_a_file_is_placed_for_its_user_alone_and_never_over_another(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target.db"
    source.write_bytes(b"one")
    restore.place(source, target, force=False)
    assert (target.read_bytes(), target.stat().st_mode & 0o777) == (b"one", 0o600)
    source.write_bytes(b"two")
    with pytest.raises(ConflictError, match="already exists"):
        restore.place(source, target, force=False)
    assert target.read_bytes() == b"one"
    restore.place(source, target, force=True)
    assert target.read_bytes() == b"two"
    dangling = tmp_path / "link"
    dangling.symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConflictError):
        restore.place(source, dangling, force=False)
    with pytest.raises(MembridgeError, match="No such file"):
        restore.place(source, tmp_path / "no-folder" / "x.db", force=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "source", "target.db"]


def test_recover_says_what_became_the_head() -> None:
    source = RecoverySource.STORE
    assert "both stores name snapshot 7" in maintenance.describe_recovered(RecoverReply(source=source, seq=7, epoch=1))
    assert "is snapshot 7 again" in maintenance.describe_recovered(
        RecoverReply(source=source, seq=7, epoch=1, rebuilt=True)
    )
    reply = RecoverReply(source=RecoverySource.MIRROR, seq=8, epoch=2, committed=True, rows=1200)
    assert (
        maintenance.describe_recovered(reply) == "committed snapshot 8 from this node's mirror: 1,200 rows, a full one"
    )
