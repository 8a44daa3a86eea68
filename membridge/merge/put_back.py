"""Take writes back: make rows of the live database again what undo records say that they were.

Short transactions, as those of a merge, and recorded like them: taking back is a write that can be taken back. Rows
that no record names stay as they are. Killed at any point and run again, the result is the same.
"""

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path

from membridge.aio.deadline import Deadline
from membridge.claudemem.connection import open_live
from membridge.claudemem.database import check_tables
from membridge.claudemem.sql import Connection, RowRefusedError, Value
from membridge.claudemem.tables import Table, quoted, travelling_tables
from membridge.merge.apply import HOLD, PAUSE
from membridge.merge.compare import Comparison
from membridge.merge.former import Content, Former, RawRows, RowKey, is_same, mark_of
from membridge.merge.recorder import Recorder, Save
from membridge.merge.three_way import Row
from schemas.commits import RowChange

#: References that the schema does not declare: a table, its column, and the sessions' column that it holds.
_UNDECLARED = (("tool_uses", "session_db_id", "id"), ("user_prompts", "content_session_id", "content_session_id"))
_SESSIONS = "sdk_sessions"


@dataclass(frozen=True, slots=True)
class PutBack:
    """How many rows are again what they were, and how many of each table had to stay as they are."""

    rows: int
    kept: dict[str, int]


def put_back(live: Path, wanted: Mapping[RowKey, Former], *, save: Save | None, deadline: Deadline) -> PutBack:
    """Make the rows of `wanted` what they were; `save` records what they are now.

    Left as it is: a row in whose place there is another one by now, a session that other rows refer to, and a row that
    would clash with one that claude-mem wrote since. Errors: the database's, DiskFullError, DeadlineExceededError.
    """
    with open_live(live, deadline=deadline) as connection:
        return _Undoing(connection, save, deadline).run(wanted, live)


def changes(live: Path, wanted: Mapping[RowKey, Former], *, limit: int, deadline: Deadline) -> Comparison:
    """Return what `put_back` would change in the memory; `limit` rows are named. Errors: the database's."""
    found = Comparison()
    with open_live(live, deadline=deadline) as connection:
        connection.run("BEGIN")
        rows, tables = RawRows(connection), travelling_tables(connection)
        for former in _ordered(wanted.values()):
            table, now = tables.get(former.table), rows.read(former.key)
            if is_same(now, former.content):
                continue
            if _is_another(former, now):
                found.count(former.table, RowChange.KEPT)
            elif table is None:
                found.count(former.table, RowChange.CHANGED)
            else:
                found.add(table, _row(table, now), _row(table, former.content), limit)
    return found


def is_undone(live: Path, formers: Iterable[Former], *, deadline: Deadline) -> bool:
    """Whether the rows are what they were before a transaction: it never happened, or all of it was taken back."""
    with open_live(live, deadline=deadline) as connection:
        connection.run("BEGIN")
        rows = RawRows(connection)
        for former in formers:
            now = rows.read(former.key)
            if is_same(now, former.content) or (former.content is None and _is_another(former, now)):
                continue
            return False
    return True


def fits(live: Path, formers: Iterable[Former], *, deadline: Deadline) -> bool:
    """Whether a database is the one in which a transaction left its rows: not all of those there are other ones."""
    left = [former for former in formers if former.mark]
    with open_live(live, deadline=deadline) as connection:
        connection.run("BEGIN")
        rows = RawRows(connection)
        # Rows that were deleted since say nothing.
        marks = [(mark, former.mark) for former in left if (mark := rows.mark(former.key))]
    return not marks or any(now == then for now, then in marks)


class _Verdict(Enum):
    """What became of a transaction."""

    COMMITTED = auto()
    UNSAVED = auto()
    UNRECORDED = auto()


@dataclass(slots=True)
class _Done:
    """What one transaction does: steps done, rows taken back, rows that the tables refused, rows that stay."""

    steps: int = 0
    rows: set[RowKey] = field(default_factory=set[RowKey])
    refused: list[Former] = field(default_factory=list[Former])
    kept: set[RowKey] = field(default_factory=set[RowKey])


class _Undoing:
    """Takes rows back through one connection; used once."""

    def __init__(self, connection: Connection, save: Save | None, deadline: Deadline) -> None:
        self._connection, self._unsaved, self._deadline = connection, save, deadline
        self._recorder = Recorder(connection, save)
        self._rows = RawRows(connection)
        self._references = _References(connection)
        self._coming: set[tuple[str, str, Value]] = set()
        self._done: set[RowKey] = set()
        self._refused: list[Former] = []
        self._kept: set[RowKey] = set()

    def run(self, wanted: Mapping[RowKey, Former], path: Path) -> PutBack:
        """Take all rows back, then check the tables that were written."""
        if self._connection.texts("PRAGMA journal_mode") == ["wal"]:
            self._connection.run("PRAGMA synchronous = NORMAL")
        steps = [former for former in _ordered(wanted.values()) if self._rows.columns(former.table)]
        self._coming = self._references.held_by(steps)
        while steps:
            del steps[: self._transaction(steps, together=False)]
        if self._refused:
            # What was in the way of one may be another one of them.
            refused, self._refused = self._refused, []
            self._transaction(refused, together=True)
        if self._done:
            check_tables(self._connection, path, sorted({table for table, _ in self._done}))
        return PutBack(len(self._done), dict(Counter(table for table, _ in self._kept)))

    def _transaction(self, steps: Sequence[Former], *, together: bool) -> int:
        while True:
            self._deadline.check("taking rows back")
            done, verdict = self._try(steps, together=together)
            if verdict is _Verdict.UNSAVED:
                save, self._unsaved = self._unsaved, None
                if save is not None:
                    save()
            elif verdict is _Verdict.UNRECORDED:
                self._recorder.record()
            else:
                break
        self._recorder.committed()
        self._done |= done.rows
        self._kept |= done.kept
        self._refused += done.refused
        if done.steps < len(steps):
            time.sleep(PAUSE)
        return done.steps

    def _try(self, steps: Sequence[Former], *, together: bool) -> tuple["_Done", "_Verdict"]:
        verdict = _Verdict.COMMITTED
        try:
            self._recorder.begin()
            done = self._together(steps) if together else self._in_turn(steps)
            if self._unsaved is not None and done.rows:
                verdict = _Verdict.UNSAVED
            elif self._recorder.lacks():
                verdict = _Verdict.UNRECORDED
            self._connection.run("COMMIT" if verdict is _Verdict.COMMITTED else "ROLLBACK")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.run("ROLLBACK")
            raise
        return done, verdict

    def _in_turn(self, steps: Sequence[Former]) -> "_Done":
        """Take back as many rows as fit into one short transaction, one at least."""
        done, began = _Done(), time.monotonic()
        for former in steps:
            done.steps += 1
            try:
                self._put(former, done)
            except RowRefusedError:
                done.refused.append(former)
            if time.monotonic() - began > HOLD:
                break
        return done

    def _together(self, steps: Sequence[Former]) -> "_Done":
        """Take back rows that are in each other's way; those that do not fit even so stay as they are."""
        fitting, kept = list(steps), set[RowKey]()
        while True:
            done = _Done(steps=len(steps))
            self._connection.run("SAVEPOINT together")
            self._make_room(fitting)
            refused: list[Former] = []
            for former in fitting:
                try:
                    self._put(former, done)
                except RowRefusedError:
                    refused.append(former)
            if not refused:
                self._connection.run("RELEASE together")
                done.kept |= kept
                return done
            self._connection.run("ROLLBACK TO together; RELEASE together")
            kept |= {former.key for former in refused}
            self._references.point_elsewhere(refused)
            fitting = [former for former in fitting if former not in refused]

    def _put(self, former: Former, done: "_Done") -> None:
        """Make a row what it was, unless it is or has to stay. Raises RowRefusedError."""
        now, content = self._rows.read(former.key), former.content
        if is_same(now, content):
            return
        if _is_another(former, now) or (content is None and self._references.holds(former.key, now, self._coming)):
            done.kept.add(former.key)
            return
        if content is not None and now is None and not self._references.finds(former, content, self._coming):
            # What it belongs to was deleted since.
            done.kept.add(former.key)
            return
        if content is not None and now is not None:
            content = self._references.kept(former.key, now, content)
            if is_same(now, content):
                done.kept.add(former.key)
                return
        self._rows.write(former.key, content)
        done.rows.add(former.key)

    def _make_room(self, steps: Sequence[Former]) -> None:
        for former in steps:
            now = self._rows.read(former.key)
            if now is None or _is_another(former, now):
                continue
            if not self._references.holds(former.key, now, self._coming):
                self._rows.write(former.key, None)


class _References:
    """What refers to a row: declared by the schema, or known."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._rows = RawRows(connection)
        #: What refers to a table, and by what: table, column, the column that it holds. What a table refers to.
        self._by_table: dict[str, list[tuple[str, str, str]]] = {}
        self._declared: dict[str, list[tuple[str, str, str]]] = {}
        for name in self._rows.tables():
            keys = connection.rows('SELECT "from", "table", "to" FROM pragma_foreign_key_list(?)', (name,))
            for column, target, held in keys:
                self._by_table.setdefault(str(target), []).append((name, str(column), str(held or "id")))
                self._declared.setdefault(name, []).append((str(column), str(target), str(held or "id")))
        for name, column, held in _UNDECLARED:
            if column in self._rows.columns(name):
                self._by_table.setdefault(_SESSIONS, []).append((name, column, held))

    def held_by(self, wanted: Iterable[Former]) -> set[tuple[str, str, Value]]:
        """Return by what the rows that are to come are referred to: table, column, value."""
        return {
            (former.table, held, _held(former.key, former.content, held))
            for former in wanted
            if former.content is not None
            for _, _, held in self._by_table.get(former.table, ())
        }

    def holds(self, key: RowKey, row: Content | None, coming: AbstractSet[tuple[str, str, Value]]) -> bool:
        """Whether another row refers to this one, and to none of those that are `coming`."""
        return row is not None and any(
            self._refers(key, row, one)
            for one in self._by_table.get(key[0], ())
            if (key[0], one[2], _held(key, row, one[2])) not in coming
        )

    def finds(self, former: Former, content: Content, coming: AbstractSet[tuple[str, str, Value]]) -> bool:
        """Whether every row that a foreign key of this one names is there, or is to come."""
        for column, target, held in self._declared.get(former.table, ()):
            value = content.value(column)
            if value is None or (target, held, value) in coming:
                continue
            name = "rowid" if held not in self._rows.columns(target) else held
            if not self._connection.exists(f"SELECT 1 FROM {quoted(target)} WHERE {quoted(name)} = ?", (value,)):  # noqa: S608 - from the schema, quoted
                return False
        return True

    def point_elsewhere(self, refused: Iterable[Former]) -> None:
        """Let what refers to sessions that do not fit refer to those that are in their place."""
        for former in refused:
            content = former.content
            if former.table != _SESSIONS or content is None or self._rows.read(former.key) is not None:
                continue
            sql = "SELECT rowid FROM sdk_sessions WHERE content_session_id IS ? OR memory_session_id IS ? LIMIT 1"
            there = self._connection.number(
                sql, (content.value("content_session_id"), content.value("memory_session_id"))
            )
            for name, column, held in self._by_table.get(_SESSIONS, ()):
                if there and held == "id":
                    change = f"UPDATE {quoted(name)} SET {quoted(column)} = ? WHERE {quoted(column)} = ?"  # noqa: S608 - from the schema, quoted
                    self._connection.run(change, (there, former.rowid))

    def kept(self, key: RowKey, now: Content, former: Content) -> Content:
        """Return `former` with the columns of `now` that other rows refer to."""
        values = dict(former.values)
        for one in self._by_table.get(key[0], ()):
            held = one[2]
            if held in now.values and now.values[held] != values.get(held) and self._refers(key, now, one):
                values[held] = now.values[held]
        return Content(values, former.blobs, former.raw)

    def _refers(self, key: RowKey, row: Content, reference: tuple[str, str, str]) -> bool:
        name, column, held = reference
        value = _held(key, row, held)
        if value is None:
            return False
        sql = f"SELECT 1 FROM {quoted(name)} WHERE {quoted(column)} = ? LIMIT 1"  # noqa: S608 - from the schema, quoted
        return self._connection.exists(sql, (value,))


def _held(key: RowKey, row: Content, column: str) -> Value:
    """Return what a reference to a row holds: a column of it, or its rowid."""
    return row.value(column) if row.has(column) else key[1]


def _ordered(wanted: Iterable[Former]) -> Iterator[Former]:
    """Yield the rows in an order in which they fit: what goes before what comes, sessions after what refers to them."""
    return iter(sorted(wanted, key=lambda one: (one.table == _SESSIONS, one.content is not None, one.table, one.rowid)))


def _is_another(former: Former, now: Content | None) -> bool:
    """Whether there is a row, and it is not the one that the write left there."""
    return now is not None and mark_of(now) != former.mark


def _row(table: Table, content: Content | None) -> Row | None:
    if content is None:
        return None
    values = {name: content.value(name) for name in table.travelling}
    return Row(values=values, rowid=None, carried={}, names=frozenset())
