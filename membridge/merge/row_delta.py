"""What changed between a memory file and the live database, as a delta: only some keys are looked at.

A row that is equal in the columns that this machine's claude-mem has is no change: what a newer version wrote into
other columns stays, also in a row that was edited here. A row in quarantine, which never came in here, did not go.
"""

from collections.abc import Iterable, Iterator, Mapping

from membridge.claudemem import canonical
from membridge.claudemem.sql import Connection, Value
from membridge.claudemem.tables import Table, travelling_tables
from membridge.merge.conflicts import Journal, row_payload
from membridge.merge.memory_file import MemoryFile
from membridge.merge.row_stream import (
    Link,
    Message,
    Origin,
    Schema,
    Sent,
    Tail,
    Went,
    origin_of,
    schema_of,
    sent_of,
)
from membridge.merge.rows import Key, Reader, key_of, shape_of
from membridge.merge.three_way import Row, edits


def delta_of(
    memory: MemoryFile, live: Connection, keys: Mapping[str, Iterable[Key]], *, journal: Journal | None = None
) -> Iterator[Message]:
    """Yield the delta that makes `memory` what the live database is, if the two differ under `keys` alone.

    Nothing when no row changed. Under each key what goes comes first. Rows that `journal` has in quarantine are left as
    they are. In the caller's transaction of the live database; `memory` may take in each message as it comes. Errors:
    the two databases'.
    """
    tables, origins = travelling_tables(live), memory.origins()
    theirs = travelling_tables(memory.connection)
    aside = journal if journal is not None and journal.holds_rows() else None
    before = memory.sums()
    rows, sums = memory.rows(), {name: int.from_bytes(total, "big") for name, total in before.items()}
    link = Link(before, *_news(memory.schema(), schema_of(live), origins, tables))
    begun = link.schema is not None
    if begun:
        yield link
    for name, table in tables.items():
        pair = _Pair(table, Reader(live, table), theirs.get(name), memory.connection, aside)
        for change in (change for key in keys.get(name, ()) for change in pair.changes(key)):
            if not begun:
                yield link
                begun = True
            came = isinstance(change, Sent)
            added = canonical.row_sum(change.canonical) if came else -int.from_bytes(change.sum, "big")
            rows[name] = rows.get(name, 0) + (1 if came else -1)
            sums[name] = sums.get(name, 0) + added
            yield change
    if begun:
        result = {name: count for name, count in rows.items() if count}
        yield Tail(result, {name: canonical.stored(sums[name]) for name in result})


class _Pair:
    """One table of the live database, and of the memory if that has it."""

    def __init__(
        self, table: Table, ours: Reader, known: Table | None, memory: Connection, aside: Journal | None
    ) -> None:
        self._table, self._ours, self._known, self._aside = table, ours, known, aside
        self._theirs = Reader(memory, known) if known is not None else None
        self._shape = shape_of(table, table.travelling)

    def changes(self, key: Key) -> Iterator[Went | Sent]:
        """Yield what changed under a key."""
        table = self._table
        theirs = self._theirs.bucket(key) if self._theirs is not None else []
        # Rows that are gone come before those that are new: they make room under the key.
        for old, new in edits(theirs, self._ours.bucket(key), self._shape):
            if new is None and self._is_aside(old):
                continue
            went = canonical.encode(self._known, old.values) if old is not None and self._known is not None else b""
            came = None if new is None else sent_of(table, _with_unknown(table, old, new))
            if came is not None and went == came.canonical:
                continue
            if went and old is not None:
                named = [_plain(part) for part in key_of(table, old.values)]
                yield Went(table.name, named, canonical.stored(canonical.row_sum(went)))
            if came is not None:
                yield came

    def _is_aside(self, old: Row | None) -> bool:
        return (
            self._aside is not None
            and old is not None
            and self._aside.holds_row(row_payload(self._table.name, old.values))
        )


def _news(
    known: Schema, live: Schema, origins: Mapping[str, Origin], tables: Mapping[str, Table]
) -> tuple[Schema | None, dict[str, Origin]]:
    """Return the live database's schema if the memory's is older, and the tables with columns that are new to it."""
    new: dict[str, Origin] = {}
    for name, table in tables.items():
        origin, seen = origin_of(table), origins.get(name)
        if seen is None or not {*origin.columns, *origin.carried} <= {*seen.columns, *seen.carried}:
            new[name] = origin
    is_newer = max((version for _, version, _ in live.versions), default=0) > max(
        (version for _, version, _ in known.versions), default=0
    )
    return (live if new or is_newer else None), new


def _with_unknown(table: Table, old: Row | None, new: Row) -> Row:
    """Return a row of the live database with what only the memory knows of it."""
    unknown = {name: value for name, value in old.values.items() if not table.has(name)} if old is not None else {}
    return Row({**unknown, **new.values}, rowid=new.rowid, carried=new.carried)


def _plain(value: Value) -> int | float | str | None:
    return value if isinstance(value, int | float | str) else None
