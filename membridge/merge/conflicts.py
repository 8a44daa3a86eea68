"""The journal: versions of rows that lost a conflict, and what was set aside because it could not be merged.

A small SQLite file of its own in the project's folder, each entry known by its content, so that a merge that is killed
and run again neither loses nor doubles one. A loser is on the disk before the live database's transaction begins that
overwrites it; so the journal may name one that was then not overwritten after all, and never lacks one that was.
"""

import hashlib
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import apsw
import msgspec

from membridge.claudemem.sql import Connection
from membridge.claudemem.translate import translated
from membridge.errors import NotFoundError, UnsupportedFormatError
from membridge.merge.three_way import Value, Values
from membridge.system import clock
from schemas.proposal import Conflict, ConflictSide, Quarantined

#: Version of the journal's own schema.
VERSION = 1
#: Entries of each kind that are kept, newest first.
MAX_ENTRIES = 10_000
#: Bytes of content that are kept of each kind, newest first.
MAX_BYTES = 200 << 20

_SCHEMA = """
CREATE TABLE conflicts (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    sum TEXT NOT NULL UNIQUE,
    "table" TEXT NOT NULL,
    body BLOB NOT NULL,
    created_at TEXT NOT NULL
);
CREATE TABLE quarantine (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    subject TEXT NOT NULL,
    reason TEXT NOT NULL,
    payload BLOB NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 1,
    dropped INTEGER NOT NULL DEFAULT 0,
    created_at TEXT NOT NULL
);
PRAGMA user_version = 1;
"""


class _Body(msgspec.Struct, frozen=True):
    key: list[int | float | str | None]
    kept: dict[str, int | float | str | None]
    lost: dict[str, int | float | str | None]
    kept_origin: str
    lost_origin: str


@dataclass(frozen=True, slots=True)
class Counts:
    """How many entries the journal shows."""

    conflicts: int
    quarantined: int


@dataclass(frozen=True, slots=True)
class Lost:
    """A conflict as a merge reports it: the row's key, the version that stayed and the one that did not."""

    table: str
    key: tuple[Value, ...]
    kept: Values
    lost: Values
    kept_origin: str
    lost_origin: str


class Journal:
    """One project's journal. Safe to use from several threads; made with its folder when it is not there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        with translated(path):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._connection = Connection(apsw.Connection(str(path), statementcachesize=16))
            self._connection.apsw.set_busy_timeout(5_000)
            self._connection.run("PRAGMA cache_size = -64")
            self._prepare()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def add_conflicts(self, losers: Iterable[Lost]) -> int:
        """Keep the versions that lost; return how many were not known yet."""
        connection, added = self._connection, 0
        with self._lock, translated(self._path), connection.apsw:
            before = connection.apsw.total_changes()
            for loser in losers:
                body = _body(loser)
                connection.run(
                    'INSERT INTO conflicts (sum, "table", body, created_at) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING',
                    (_sum(loser.table.encode(), body), loser.table, body, clock.stamp()),
                )
            added = connection.apsw.total_changes() - before
            self._trim("conflicts", "id", "body")
        return added

    def conflicts(self, *, limit: int = 1_000) -> list[Conflict]:
        """Return the conflicts, newest first."""
        with self._lock, translated(self._path):
            rows = self._connection.rows(
                'SELECT id, "table", body, created_at FROM conflicts ORDER BY id DESC LIMIT ?', (limit,)
            )
        return [_conflict(row) for row in rows]

    def quarantine(self, kind: str, subject: str, reason: str, payload: bytes) -> str:
        """Set something aside and return its id; the same payload again counts as another attempt."""
        self._quarantine(kind, [(subject, reason, payload)])
        return _sum(kind.encode(), payload)

    def quarantine_rows(self, rows: Iterable[tuple[str, str, bytes]]) -> None:
        """Set rows aside: the subject, the reason and the payload of each."""
        self._quarantine("row", rows)

    def _quarantine(self, kind: str, items: Iterable[tuple[str, str, bytes]]) -> None:
        with self._lock, translated(self._path), self._connection.apsw:
            connection = self._connection
            for subject, reason, payload in items:
                connection.run(
                    "INSERT INTO quarantine (id, kind, subject, reason, payload, created_at) VALUES (?, ?, ?, ?, ?, ?) "
                    "ON CONFLICT (id) DO UPDATE SET attempts = attempts + 1, reason = excluded.reason",
                    (_sum(kind.encode(), payload), kind, subject, reason, payload, clock.stamp()),
                )
            self._trim("quarantine", "rowid", "payload")

    def quarantined(self) -> list[Quarantined]:
        """Return what is set aside, newest first."""
        with self._lock, translated(self._path):
            rows = self._connection.rows(
                "SELECT id, kind, subject, reason, created_at, attempts FROM quarantine "
                "WHERE NOT dropped ORDER BY rowid DESC"
            )
        return [_quarantined(row) for row in rows]

    def payload(self, identity: str) -> bytes:
        """Return the content of what was set aside. Raises NotFoundError."""
        with self._lock, translated(self._path):
            row = self._connection.row("SELECT payload FROM quarantine WHERE id = ?", (identity,))
        if row is None or not isinstance(row[0], bytes):
            raise NotFoundError(f"nothing in quarantine has the id {identity}", remedy="run `membridge quarantine`")
        return row[0]

    def drop(self, identity: str) -> None:
        """Hide an entry. A row stays known as set aside: it must not look as if a user had deleted it."""
        self._change(
            "UPDATE quarantine SET dropped = 1 WHERE id = ? AND kind = 'row' AND NOT dropped;"
            "DELETE FROM quarantine WHERE id = ? AND kind != 'row'",
            (identity, identity),
            f"item {identity}",
            "run `membridge quarantine`",
        )

    def resolve(self, payloads: Iterable[bytes]) -> None:
        """Forget rows that were set aside and have been taken in after all."""
        with self._lock, translated(self._path), self._connection.apsw:
            connection = self._connection
            for payload in payloads:
                connection.run("DELETE FROM quarantine WHERE id = ?", (row_identity(payload),))

    def holds_rows(self) -> bool:
        """Whether any row is set aside."""
        with self._lock, translated(self._path):
            return self._connection.exists("SELECT 1 FROM quarantine WHERE kind = 'row'")

    def rows_aside(self) -> set[str]:
        """Return what `row_identity` gives for the rows that are set aside."""
        with self._lock, translated(self._path):
            return set(self._connection.texts("SELECT id FROM quarantine WHERE kind = 'row'"))

    def holds_row(self, payload: bytes) -> bool:
        """Whether this row is set aside."""
        with self._lock, translated(self._path):
            return self._connection.exists("SELECT 1 FROM quarantine WHERE id = ?", (row_identity(payload),))

    def counts(self) -> Counts:
        """Return how many entries there are to look at."""
        with self._lock, translated(self._path):
            return Counts(
                conflicts=self._connection.number("SELECT count(*) FROM conflicts"),
                quarantined=self._connection.number("SELECT count(*) FROM quarantine WHERE NOT dropped"),
            )

    def _prepare(self) -> None:
        found = self._connection.number("PRAGMA user_version")
        if found == 0:
            # A command may come upon a new project beside its daemon: one of them makes the tables.
            self._connection.run("BEGIN IMMEDIATE")
            with self._connection.apsw:
                if self._connection.number("PRAGMA user_version") == 0:
                    self._connection.run(_SCHEMA)
            self._connection.run("COMMIT")
        elif found > VERSION:
            self._connection.close()
            raise UnsupportedFormatError(
                f"the journal {self._path} has format {found}, this version reads up to {VERSION}"
            )

    def _change(self, sql: str, bindings: tuple[str | int, ...], what: str, remedy: str) -> None:
        with self._lock, translated(self._path), self._connection.apsw:
            connection = self._connection
            before = connection.apsw.total_changes()
            connection.run(sql, bindings)
            if connection.apsw.total_changes() == before:
                raise NotFoundError(f"{what} is not in the journal", remedy=remedy)

    def _trim(self, table: str, order: str, content: str) -> None:
        over = (
            f"{order} IN (SELECT {order} FROM (SELECT {order}, "  # noqa: S608 - our own names
            f"row_number() OVER (ORDER BY {order} DESC) AS number, "
            f"sum(length({content})) OVER (ORDER BY {order} DESC) AS bytes FROM {table}) "
            "WHERE number > ? OR bytes > ?)"
        )
        if table == "quarantine":
            # A row stays known by its sum: forgotten, it would look as if a user had deleted it.
            self._connection.run(
                f"UPDATE quarantine SET payload = x'', dropped = 1 WHERE kind = 'row' AND NOT dropped AND {over}",  # noqa: S608 - our own names
                (MAX_ENTRIES, MAX_BYTES),
            )
            over += " AND kind != 'row'"
        self._connection.run(f"DELETE FROM {table} WHERE {over}", (MAX_ENTRIES, MAX_BYTES))  # noqa: S608 - our own names


def _conflict(row: tuple[Value, ...]) -> Conflict:
    number, table, raw, at = row
    body = msgspec.json.decode(raw if isinstance(raw, bytes) else b"", type=_Body)
    return Conflict(
        id=number if isinstance(number, int) else 0,
        table=str(table),
        key=list(body.key),
        kept=ConflictSide(origin=body.kept_origin, row=dict(body.kept)),
        lost=ConflictSide(origin=body.lost_origin, row=dict(body.lost)),
        at=str(at),
    )


def _quarantined(row: tuple[Value, ...]) -> Quarantined:
    identity, kind, subject, reason, at = map(str, row[:5])
    attempts = row[5] if isinstance(row[5], int) else 0
    return Quarantined(id=identity, kind=kind, subject=subject, reason=reason, attempts=attempts, created_at=at)


def plain(value: Value) -> int | float | str | None:
    """Return a value in a form that JSON has; bytes as SQLite would write them."""
    return f"x'{value.hex()}'" if isinstance(value, bytes) else value


def plain_row(values: Values) -> dict[str, int | float | str | None]:
    """Return a row in a form that JSON has."""
    return {column: plain(value) for column, value in values.items()}


def row_payload(table: str, values: Values) -> bytes:
    """Return the bytes that identify a row in quarantine."""
    return msgspec.json.encode({"table": table, "row": plain_row(values)}, order="sorted")


def row_identity(payload: bytes) -> str:
    """Return the id under which a row is set aside."""
    return _sum(b"row", payload)


def loser_identity(loser: Lost) -> str:
    """Return the id of a conflict."""
    return _sum(loser.table.encode(), _body(loser))


def _body(loser: Lost) -> bytes:
    return msgspec.json.encode(
        _Body(
            key=[plain(value) for value in loser.key],
            kept=plain_row(loser.kept),
            lost=plain_row(loser.lost),
            kept_origin=loser.kept_origin,
            lost_origin=loser.lost_origin,
        )
    )


def _sum(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:32]
