"""Write single rows into the live database: insert another machine's, update what differs, delete.

Runs inside a transaction of the caller's. Whatever belongs to this machine stays: an update touches no local column, an
inserted row is stamped so that claude-mem's own sync never takes it for one of this machine's unsent rows.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping

from membridge.claudemem.sql import Connection, RowRefusedError
from membridge.claudemem.tables import KEY_DEFAULTS, REFERENCE_KEYS, Column, Table, quoted
from membridge.merge.report import Source
from membridge.merge.three_way import Row, Value, Values
from membridge.system import clock

#: Bytes of a row beyond which it is set aside: claude-mem's own are kilobytes.
MAX_ROW_BYTES = 8 << 20

#: Tables whose rows must find their session by its memory id, as their foreign key demands.
_OF_SESSION = frozenset({"observations", "session_summaries"})
#: Where a session is referred to: table, column, and the session's column that it holds.
_REFERRERS = (
    ("observations", "memory_session_id", "memory_session_id"),
    ("session_summaries", "memory_session_id", "memory_session_id"),
    ("user_prompts", "content_session_id", "content_session_id"),
    ("user_prompts", "session_db_id", "id"),
    ("tool_uses", "session_db_id", "id"),
    ("pending_messages", "session_db_id", "id"),
)


class PoisonRowError(Exception):
    """A row that the live database cannot hold; never leaves this package, which sets the row aside."""


class RowWriter:
    """Writes rows that come from `source`. `find_session` returns a session of theirs by its memory id."""

    def __init__(
        self,
        connection: Connection,
        tables: Mapping[str, Table],
        source: Source,
        find_session: Callable[[str], Row | None],
    ) -> None:
        self._connection, self._tables, self._source, self._find_session = connection, tables, source, find_session

    def insert(self, table: Table, row: Row) -> None:
        """Insert a row of theirs under a fresh rowid. Raises PoisonRowError when it does not fit."""
        values = self._resolved(table, row.values)
        if table.name in _OF_SESSION:
            self._ensure_session(row.values)
        values |= self._stamps(table, row)
        if made := self._made_for(table, row.values):
            self._set(table, {name: value for name, value in values.items() if value is not None}, made)
        else:
            self._insert(table, values)

    def update(self, table: Table, ours: Row, values: Values) -> None:
        """Set `values` in a row of ours. Raises PoisonRowError when they do not fit."""
        resolved = self._resolved(table, values)
        if not resolved:
            return
        if "memory_session_id" in resolved and (made := self._made_for(table, {**ours.values, **values})):
            self._join(made, ours)
        self._set(table, resolved, ours.rowid)
        former = ours.values.get("memory_session_id")
        if table.name == "sdk_sessions" and "memory_session_id" in resolved and isinstance(former, str):
            self._keep_found(former, ours.values)

    def delete(self, table: Table, ours: Row) -> bool:
        """Delete a row of ours; return False for a session that other rows, which stay, refer to."""
        if table.name == "sdk_sessions" and self._is_referred_to(ours):
            return False
        self._connection.run(f"DELETE FROM {quoted(table.name)} WHERE rowid = ?", (ours.rowid,))  # noqa: S608 - quoted
        return True

    def _insert(self, table: Table, values: Values, otherwise: str = "") -> None:
        # NULL where the column here forbids it: the column's default is what an older version meant.
        given = {name: value for name, value in values.items() if value is not None or not table.columns[name].not_null}
        given |= stand_ins(table, values)
        columns, marks = ", ".join(map(quoted, given)), ", ".join("?" * len(given))
        sql = f"INSERT INTO {quoted(table.name)} ({columns}) VALUES ({marks}) {otherwise}"  # noqa: S608 - names from the schema, quoted
        self._execute(sql, tuple(given.values()))

    def _set(self, table: Table, values: Values, rowid: int | None) -> None:
        columns = ", ".join(f"{quoted(name)} = ?" for name in values)
        sql = f"UPDATE {quoted(table.name)} SET {columns} WHERE rowid = ?"  # noqa: S608 - names from the schema, quoted
        self._execute(sql, (*values.values(), rowid))

    def _execute(self, sql: str, bindings: tuple[Value, ...]) -> None:
        try:
            self._connection.write(sql, bindings)
        except RowRefusedError as error:
            raise PoisonRowError(str(error)) from error

    def _resolved(self, table: Table, values: Values) -> dict[str, Value]:
        """Return the values of the columns that exist here, rowids looked up. Raises PoisonRowError."""
        check_fits(table, values)
        resolved: dict[str, Value] = {}
        for column, value in values.items():
            if column in table.references:
                resolved[column] = self._rowid_of(table.references[column].table, value)
            elif table.has(column):
                resolved[column] = value
        if table.name == "user_prompts" and "session_db_id" in table.columns and "session_db_id" not in values:
            # From a version whose prompts knew their session by its content id alone.
            session = json.dumps([KEY_DEFAULTS["platform_source"], values.get("content_session_id")])
            if "content_session_id" in values:
                resolved["session_db_id"] = self._rowid_of("sdk_sessions", session)
        return resolved

    def _rowid_of(self, target: str, key: Value) -> int | None:
        table = self._tables.get(target)
        if not isinstance(key, str) or table is None:
            return None
        known = [
            (column, value)
            for column, value in zip(REFERENCE_KEYS[target], json.loads(key), strict=True)
            if table.has(column)
        ]
        conditions = " AND ".join(f"{quoted(column)} IS ?" for column, _ in known)
        sql = f"SELECT rowid FROM {quoted(target)} WHERE {conditions} ORDER BY rowid LIMIT 1"  # noqa: S608 - names from the schema, quoted
        return self._connection.number(sql, tuple(value for _, value in known)) or None

    def _stamps(self, table: Table, row: Row) -> dict[str, Value]:
        stamps: dict[str, Value] = {}
        if table.has("synced_at"):
            stamps["synced_at"] = int(clock.now().timestamp() * 1000)
        if table.has("origin_device_id") and table.has("origin_local_id"):
            stamps |= self._origin(table, row)
        if table.name == "observations" and table.has("content_hash"):
            stamps["content_hash"] = self._content_hash(row)
        elif table.has("content_hash"):
            stamps["content_hash"] = row.carried.get("content_hash")
        return stamps

    def _origin(self, table: Table, row: Row) -> dict[str, Value]:
        device, local = row.carried.get("origin_device_id"), row.carried.get("origin_local_id")
        if device is None:
            device, local = self._source.device, None if row.rowid is None else str(row.rowid)
        taken = self._connection.exists(
            f"SELECT 1 FROM {quoted(table.name)} WHERE origin_device_id = ? AND origin_local_id = ?",  # noqa: S608 - quoted
            (device, local),
        )
        return {"origin_device_id": device, "origin_local_id": None if taken else local}

    def _content_hash(self, row: Row) -> Value:
        """Return the hash by which claude-mem knows an observation of a session, or another one where that is taken."""
        session, title, text = (row.values.get(name) for name in ("memory_session_id", "title", "narrative"))
        carried = row.carried.get("content_hash")
        content = "\0".join(str(part) if part is not None else "" for part in (session, title, text))
        wanted = carried if isinstance(carried, str) else hashlib.sha256(content.encode()).hexdigest()[:16]
        taken = self._connection.exists(
            "SELECT 1 FROM observations WHERE memory_session_id IS ? AND content_hash = ?", (session, wanted)
        )
        if not taken:
            return wanted
        # Two rows may be one memory to claude-mem and still differ in what they hold: both are kept.
        return second_hash(wanted, row.values)

    def _ensure_session(self, values: Values) -> None:
        memory_id = values.get("memory_session_id")
        if not isinstance(memory_id, str) or self._has_session(memory_id):
            return
        sessions = self._tables["sdk_sessions"]
        theirs = self._find_session(memory_id)
        if theirs is not None:
            try:
                self.insert(sessions, theirs)
            except PoisonRowError:
                self._make_session(memory_id, values)
        else:
            self._make_session(memory_id, values)

    def _keep_found(self, memory_id: str, values: Values) -> None:
        """Leave no observation without a session after its session got another memory id."""
        for name in _OF_SESSION:
            sql = f"SELECT 1 FROM {quoted(name)} WHERE memory_session_id = ? LIMIT 1"  # noqa: S608 - our own names
            if not self._has_session(memory_id) and self._connection.exists(sql, (memory_id,)):
                self._make_session(memory_id, values)

    def _make_session(self, memory_id: str, values: Values) -> None:
        """Insert the session that claude-mem's own sync makes for rows whose session it does not know."""
        sessions = self._tables["sdk_sessions"]
        made: dict[str, Value] = {
            "content_session_id": memory_id,
            "memory_session_id": memory_id,
            "project": values.get("project") or "unknown",
            "started_at": values.get("created_at") or values.get("started_at") or "",
            "started_at_epoch": values.get("created_at_epoch") or values.get("started_at_epoch") or 0,
            "status": "completed",
        }
        known = {name: value for name, value in made.items() if sessions.has(name)}
        self._insert(sessions, known, "ON CONFLICT DO NOTHING")

    def _made_for(self, table: Table, values: Values) -> int:
        """Return the rowid of the session that was made for rows which came before this session, 0 if there is none.

        The real session takes its place, and what refers to it stays.
        """
        memory_id, content_id = values.get("memory_session_id"), values.get("content_session_id")
        if table.name != "sdk_sessions" or not isinstance(memory_id, str) or content_id == memory_id:
            return 0
        sql = "SELECT rowid FROM sdk_sessions WHERE memory_session_id = ? AND content_session_id = ? LIMIT 1"
        return self._connection.number(sql, (memory_id, memory_id))

    def _join(self, made: int, ours: Row) -> None:
        """Delete a session that was made, in favour of ours; what refers to it by its id refers to ours then."""
        for name, column, held in self._referrers():
            if held == "id":
                sql = f"UPDATE {quoted(name)} SET {quoted(column)} = ? WHERE {quoted(column)} = ?"  # noqa: S608 - our own names
                self._execute(sql, (ours.rowid, made))
        self._connection.run("DELETE FROM sdk_sessions WHERE rowid = ?", (made,))

    def _has_session(self, memory_id: str) -> bool:
        return self._connection.exists("SELECT 1 FROM sdk_sessions WHERE memory_session_id = ?", (memory_id,))

    def _is_referred_to(self, session: Row) -> bool:
        for name, column, held in self._referrers():
            value = session.rowid if held == "id" else session.values.get(held)
            if value is None:
                continue
            sql = f"SELECT 1 FROM {quoted(name)} WHERE {quoted(column)} = ? LIMIT 1"  # noqa: S608 - our own names
            if self._connection.exists(sql, (value,)):
                return True
        return False

    def _referrers(self) -> Iterator[tuple[str, str, str]]:
        """Yield those of `_REFERRERS` that this database has."""
        present = set(self._connection.texts("SELECT name FROM sqlite_schema WHERE type = 'table'"))
        for name, column, held in _REFERRERS:
            if name in present and self._has_column(name, column):
                yield name, column, held

    def _has_column(self, name: str, column: str) -> bool:
        table = self._tables.get(name)
        return table is None or table.has(column)


def second_hash(wanted: Value, values: Values) -> str:
    """Return the hash of an observation whose first one another one of its session has: the same on every node."""
    return hashlib.sha256(repr((wanted, sorted(values.items()))).encode()).hexdigest()[:16]


def check_fits(table: Table, values: Values) -> None:
    """Raise PoisonRowError for values that SQLite would take but claude-mem could not use."""
    total = 0
    for name, value in values.items():
        column = table.columns.get(name)
        if isinstance(value, bytes | str):
            total += len(value)
        if column is not None and name not in table.references and not _fits(column, value):
            raise PoisonRowError(f"column {name} holds {type(value).__name__} where {column.type} belongs")
    if total > MAX_ROW_BYTES:
        raise PoisonRowError(f"the row holds {total} bytes, more than {MAX_ROW_BYTES}")


def stand_ins(table: Table, values: Values) -> dict[str, Value]:
    """Return values for the columns that a newer claude-mem demands and that a row of an older one does not have.

    The row's own time for a time, its key's sum where an index may want one of a kind, otherwise nothing of the
    column's type: every node makes the same of the same row. What the table refuses even then is set aside.
    """
    return {
        column.name: _stand_in(table, column, values)
        for column in table.columns.values()
        if column.not_null and not column.filled and column.name not in values and column.name not in table.references
    }


def _stand_in(table: Table, column: Column, values: Values) -> Value:
    if column.name.endswith("_epoch"):
        return values.get("created_at_epoch") or values.get("started_at_epoch") or 0
    if column.name.endswith("_at") and _holds_text(column):
        return values.get("created_at") or values.get("started_at") or ""
    if _holds_text(column):
        key = json.dumps([str(values.get(name)) for name in table.key])
        return hashlib.sha256(key.encode()).hexdigest()[:32] if column.name in table.indexed else ""
    return b"" if not column.type or "BLOB" in column.type else 0


def _holds_text(column: Column) -> bool:
    return any(kind in column.type for kind in ("CHAR", "TEXT", "CLOB"))


def _fits(column: Column, value: Value) -> bool:
    if value is None or not column.type:
        return True
    if "INT" in column.type:
        return isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if _holds_text(column):
        return not isinstance(value, bytes)
    return True
