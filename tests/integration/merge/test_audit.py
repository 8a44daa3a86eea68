"""The comparison of everything in slices: it finds what the index missed, and only that, whatever happens meanwhile."""

import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import astuple
from pathlib import Path

import apsw
import pytest

from membridge.aio.deadline import Deadline
from membridge.claudemem import database
from membridge.merge import collect, row_index
from membridge.merge.audit import AUDIT_FILE, RESTARTS, Audit, noted
from membridge.merge.row_index import INDEX_FILE, MirrorFile, RowIndex, missed_in
from membridge.system import files
from tests.fixtures.databases import add_observation, connect, execute

#: What a writer may do to a row; each changes one key, in the first table, the last, and between.
CHANGES = {
    "updated": "UPDATE observations SET narrative = 'missed' WHERE id = (SELECT max(id) FROM observations)",
    "inserted": "INSERT INTO user_prompts (content_session_id, prompt_number, prompt_text, created_at, "
    "created_at_epoch) SELECT content_session_id, 9000, 'missed', created_at, 1 FROM user_prompts LIMIT 1",
    "deleted": "DELETE FROM session_summaries WHERE id = (SELECT max(id) FROM session_summaries)",
}


def soon() -> Deadline:
    return Deadline.after(60.0)


class Machine:
    """A live database, its index and mirror, and an audit of them."""

    def __init__(self, folder: Path, live: Path) -> None:
        self.folder, self.live = folder, live
        self.index = RowIndex(folder / INDEX_FILE, live, lasting=True)
        self.audit = Audit(folder / AUDIT_FILE, self.index)
        self.mirror = self.pushed()
        self.index.catch_up(self.mirror, deadline=soon())

    def pushed(self) -> MirrorFile:
        """Make a mirror of what is live now."""
        target = self.folder / f"mirror-{len(list(self.folder.glob('mirror-*')))}.db"
        database.backup(self.live, target, deadline=soon())
        self.mirror = MirrorFile(files.sha256_of(target), target)
        return self.mirror

    def push(self) -> None:
        turn = self.index.catch_up(self.mirror, deadline=soon()).turn
        self.index.moved(self.pushed().sha256, {}, turn=turn)

    def miss(self, sql: str) -> None:
        """Let the index miss a change."""
        self.index.catch_up(self.mirror, deadline=soon())
        execute(self.live, sql)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(row_index, "_take_in", lambda *_: True)
            self.index.catch_up(self.mirror, deadline=soon())

    def slices(self, between: Callable[[], object] = lambda: None, *, seconds: float = 0.002) -> int:
        """Go on until the audit is complete, a few rows at a time; return how many keys had been missed."""
        missed, self.audit._seconds = 0, seconds
        while True:
            found = self.audit.go_on(self.mirror, deadline=soon())
            missed += found.missed
            if found.is_last:
                break
            between()
        return missed

    def open_keys(self) -> int:
        return sum(len(keys) for keys in self.index.catch_up(self.mirror, deadline=soon()).open.values())

    def lacking(self) -> int:
        return len(collect.collect(self.live, self.mirror.path, deadline=soon()))


@pytest.fixture
def machine(tmp_path: Path, claude_mem_copy: Path) -> Machine:
    folder = tmp_path / "state"
    folder.mkdir()
    return Machine(folder, claude_mem_copy)


@pytest.mark.parametrize("change", CHANGES)
def test_what_the_index_missed_is_found_counted_and_healed(machine: Machine, change: str) -> None:
    machine.miss(CHANGES[change])
    assert (machine.open_keys(), machine.lacking()) == (0, 1)

    assert machine.slices() == 1

    assert machine.open_keys() == 1
    assert machine.slices() == 0
    assert missed_in(machine.folder / INDEX_FILE) == 1


def test_what_the_index_knows_is_not_missed(machine: Machine) -> None:
    for sql in CHANGES.values():
        execute(machine.live, sql)

    assert machine.slices() == 0
    assert machine.open_keys() >= 3


def test_each_slice_compares_one_row_at_least_and_the_end_is_noted(machine: Machine) -> None:
    before = machine.audit.note
    rows = sum(machine.index.catch_up(machine.mirror, deadline=soon()).rows.values())
    seen = [machine.audit.note]

    machine.slices(lambda: seen.append(machine.audit.note), seconds=0.0)

    places = [(note.side, note.table, note.row) for note in seen[1:]]
    assert places == sorted(set(places))
    assert len(places) == 2 * rows
    assert (before.ended_at, bool(before.since)) == ("", True)
    after = noted(machine.folder / AUDIT_FILE)
    assert after.ended_at > after.since == before.since
    assert not after.is_under_way


def test_what_is_written_between_two_slices_is_not_missed(machine: Machine) -> None:
    """Rows change, come and go behind and before the place where the next slice begins."""
    writer, turn = connect(machine.live), iter(range(1_000_000))

    def write() -> None:
        number = next(turn)
        if number % 25:
            return
        writer.execute(f"UPDATE observations SET narrative = 'n{number}' WHERE id % 50 = {number % 50}")
        writer.execute("DELETE FROM user_prompts WHERE id = (SELECT max(id) FROM user_prompts)")
        add_observation(machine.live, f"between {number}")
        if number % 100 == 0:
            writer.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()

    assert machine.slices(write, seconds=0.0) == 0
    writer.close()


def test_a_mirror_that_moves_makes_it_begin_again_but_not_for_ever(machine: Machine) -> None:
    pushes = 0

    def push() -> None:
        nonlocal pushes
        note = machine.audit.note
        if note.side == 0 and note.table == "session_summaries" and pushes < RESTARTS + 2:
            pushes += 1
            add_observation(machine.live, f"push {pushes}")
            machine.push()
            machine.audit.go_on(machine.mirror, deadline=soon())
            after = machine.audit.note
            began_again = after.table < "session_summaries"
            assert began_again == (pushes <= RESTARTS)
            assert after.restarts == min(pushes, RESTARTS)

    assert machine.slices(push, seconds=0.0) == 0
    assert pushes == RESTARTS + 2


def test_a_miss_behind_the_place_is_found_after_a_push(machine: Machine) -> None:
    done = []

    def between() -> None:
        if not done and machine.audit.note.table == "user_prompts":
            done.append(True)
            machine.miss(CHANGES["updated"])
            turn = machine.index.catch_up(machine.mirror, deadline=soon()).turn
            # A push that takes along what the index knows of, as one of rows does.
            other = machine.folder / "mirror-of-rows.db"
            files.copy(machine.mirror.path, other)
            with closing(apsw.Connection(str(other))) as connection:
                connection.execute("UPDATE observations SET title = title || '' WHERE id = 1; VACUUM")
            machine.mirror = MirrorFile(files.sha256_of(other) + "2", other)
            machine.index.moved(machine.mirror.sha256, {}, turn=turn)

    assert machine.slices(between, seconds=0.0) == 1
    assert machine.open_keys() == 1


def test_rows_that_lie_elsewhere_in_the_mirror_are_no_difference(machine: Machine) -> None:
    with closing(apsw.Connection(str(machine.mirror.path))) as connection:
        connection.execute("PRAGMA foreign_keys = OFF; UPDATE observations SET id = id + 100000")
        connection.execute("UPDATE user_prompts SET id = 100000 - id; UPDATE session_summaries SET id = id * 7 + 1000")
    assert machine.lacking() == 0
    assert machine.slices() == 0

    machine.miss(CHANGES["updated"])
    assert machine.slices() == 1


def test_one_that_is_killed_goes_on_where_it_was(machine: Machine) -> None:
    machine.miss(CHANGES["inserted"])
    machine.index.close()
    killed = subprocess.run(
        [sys.executable, "-c", _KILLED, *map(str, (machine.folder, machine.live, *astuple(machine.mirror)))],
        timeout=60.0,
        check=False,
    )
    assert killed.returncode == -9

    left = noted(machine.folder / AUDIT_FILE)
    assert left.is_under_way
    assert left.table
    machine.audit = Audit(machine.folder / AUDIT_FILE, machine.index)
    assert machine.slices() == 1
    assert noted(machine.folder / AUDIT_FILE).ended_at


_KILLED = """
import os, signal, sys
from pathlib import Path
from membridge.aio.deadline import Deadline
from membridge.merge import audit
from membridge.merge.row_index import INDEX_FILE, MirrorFile, RowIndex

folder, live, sha256, mirror = sys.argv[1:]
index = RowIndex(Path(folder) / INDEX_FILE, Path(live), lasting=True)
one = audit.Audit(Path(folder) / audit.AUDIT_FILE, index, seconds=0.0)
look, slices = audit._TableComparison.rows, 0

def dying(*args):
    global slices
    slices += 1
    if slices == 3 * audit.NOTE_EVERY + 5:
        os.kill(os.getpid(), signal.SIGKILL)
    return look(*args)

audit._TableComparison.rows = dying
while True:
    one.go_on(MirrorFile(sha256, Path(mirror)), deadline=Deadline.after(60.0))
"""


@pytest.mark.parametrize("content", [b"", b"{", b'{"row": "x"}', b"\xff\xfe"])
def test_a_damaged_note_begins_anew(machine: Machine, content: bytes) -> None:
    (machine.folder / AUDIT_FILE).write_bytes(content)
    machine.audit = Audit(machine.folder / AUDIT_FILE, machine.index)

    assert machine.audit.note.since
    assert machine.slices() == 0


def test_text_that_is_not_utf8_names_nothing_and_is_not_missed(machine: Machine) -> None:
    machine.miss(
        "UPDATE observations SET title = CAST(x'ff' AS TEXT), memory_session_id = memory_session_id WHERE id = 2"
    )

    assert machine.slices() in {0, 1}
    assert machine.slices() == 0


def test_a_table_that_goes_while_it_is_compared_ends_with_the_others(machine: Machine) -> None:
    execute(machine.live, "CREATE TABLE notes (name TEXT UNIQUE, text TEXT)")
    execute(machine.live, "INSERT INTO notes VALUES ('a', 'x'), ('b', 'y')")
    machine.push()

    def go() -> None:
        if machine.audit.note.table == "notes":
            execute(machine.live, "DROP TABLE IF EXISTS notes")

    assert machine.slices(go, seconds=0.0) == 0
    assert noted(machine.folder / AUDIT_FILE).ended_at
