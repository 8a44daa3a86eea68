"""Rows that this machine has and the canonical memory lacks: the rows of a proposal, and their number.

Compares with the mirror, the state that was merged last: a row that the mirror has and ours lacks was deleted here,
unless it is in quarantine. Never writes.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from membridge.aio.deadline import Deadline
from membridge.claudemem.connection import open_live, open_to_compare
from membridge.claudemem.sql import Connection
from membridge.claudemem.tables import Table, quoted, shared_columns, travelling_tables
from membridge.merge.conflicts import Journal, plain_row, row_payload
from membridge.merge.difference import difference
from membridge.merge.rows import Key, Reader, shape_of
from membridge.merge.three_way import Row, Value, edits
from membridge.merge.write import PoisonRowError, check_fits
from schemas.proposal import ProposedRow


def collect(
    live: Path, canonical: Path | None, *, journal: Journal | None = None, deadline: Deadline
) -> list[ProposedRow]:
    """Return the rows that ours has new, changed or deleted against the canonical memory, sessions first.

    `canonical` is the mirror; None where the project has no snapshot yet. Rows that `journal` has in quarantine are
    left out, and rows that no other machine could take in. Errors: the database's, DeadlineExceededError.
    """
    if canonical is None:
        with open_live(live, deadline=deadline) as connection:
            return list(_everything(connection))
    with open_to_compare(live, canonical, deadline=deadline) as connection:
        aside = journal if journal is not None and journal.holds_rows() else None
        found: list[ProposedRow] = []
        for one in difference(connection):
            pair = _Pair(connection, one.ours, one.theirs)
            for key in one.keys(connection) if not one.is_empty else ():
                found += pair.proposed(pair.edits(key), aside)
        return found


@dataclass(frozen=True, slots=True)
class OpenRows:
    """What was found under some keys: the rows to propose, the keys without a difference, and whether any has one.

    `differs` covers every row, also those that are in quarantine or that no other machine could take in.
    """

    rows: list[ProposedRow]
    equal: dict[str, list[Key]]
    differs: bool


def collect_open(
    live: Path, canonical: Path, keys: Mapping[str, Sequence[Key]], *, journal: Journal | None, deadline: Deadline
) -> OpenRows:
    """Return what `collect` would return if no row differed but under `keys`. Errors: as `collect`."""
    with open_to_compare(live, canonical, deadline=deadline) as connection:
        connection.run("BEGIN")
        aside = journal if journal is not None and journal.holds_rows() else None
        ours, theirs = travelling_tables(connection), travelling_tables(connection, "theirs")
        rows: list[ProposedRow] = []
        equal: dict[str, list[Key]] = {}
        differs = _has_lone_rows(connection, ours, theirs)
        for name in [name for name in ours if name in theirs and name in keys]:
            pair = _Pair(connection, ours[name], theirs[name])
            for key in keys[name]:
                edited = pair.edits(key)
                differs = differs or bool(edited)
                if edited:
                    rows += pair.proposed(edited, aside)
                else:
                    equal.setdefault(name, []).append(key)
    return OpenRows(rows, equal, differs)


def differs(live: Path, canonical: Path, *, deadline: Deadline) -> bool:
    """Whether the two hold different memories; machine-local data is ignored.

    A table that only one of them has makes one when it has rows.
    """
    with open_to_compare(live, canonical, deadline=deadline) as connection:
        ours, theirs = travelling_tables(connection), travelling_tables(connection, "theirs")
        if _has_lone_rows(connection, ours, theirs):
            return True
        return any(not one.is_empty for one in difference(connection))


def _everything(connection: Connection) -> Iterator[ProposedRow]:
    for table in travelling_tables(connection).values():
        reader = Reader(connection, table)
        for rowid in connection.numbers(f"SELECT rowid FROM {quoted(table.name)}"):  # noqa: S608 - quoted
            row = reader.row(rowid)
            if row is not None and _can_travel(table, row):
                yield _proposed(table, (), None, row)


class _Pair:
    """One table of the live database, and of the canonical memory that is attached."""

    def __init__(self, connection: Connection, ours: Table, theirs: Table) -> None:
        self._table, self._columns = ours, shared_columns(ours, theirs)
        self._ours, self._canonical = Reader(connection, ours), Reader(connection, theirs, "theirs")
        self._shape = shape_of(ours, self._columns)

    def edits(self, key: Key) -> list[tuple[Row | None, Row | None]]:
        """Return where the two differ under a key."""
        return edits(self._canonical.bucket(key), self._ours.bucket(key), self._shape)

    def proposed(self, found: list[tuple[Row | None, Row | None]], aside: Journal | None) -> Iterator[ProposedRow]:
        """Yield what may be proposed of what `edits` found."""
        table = self._table
        for known, held in found:
            if aside is not None and known is not None and aside.holds_row(row_payload(table.name, known.values)):
                continue
            if all(row is None or _can_travel(table, row) for row in (known, held)):
                yield _proposed(table, self._columns, known, held)


def _has_lone_rows(connection: Connection, ours: Mapping[str, Table], theirs: Mapping[str, Table]) -> bool:
    """Whether a table that only one of the two has holds a row."""
    lone = [f"main.{quoted(name)}" for name in ours.keys() - theirs.keys()]
    lone += [f"theirs.{quoted(name)}" for name in theirs.keys() - ours.keys()]
    return any(connection.exists(f"SELECT 1 FROM {name} LIMIT 1") for name in lone)  # noqa: S608 - quoted


def _proposed(table: Table, columns: tuple[str, ...], known: Row | None, held: Row | None) -> ProposedRow:
    return ProposedRow(
        table=table.name,
        row=None if held is None else plain_row(_content(table, held)),
        # Only what both versions know: a column that ours lacks was not emptied here.
        base=None if known is None else plain_row({column: known.values[column] for column in columns}),
        parents={} if held is None else _parents(table, held),
        local_id=None if held is None else held.rowid,
    )


def _content(table: Table, row: Row) -> dict[str, Value]:
    content = {name: value for name, value in row.values.items() if name not in table.references}
    return content | {name: value for name, value in row.carried.items() if value is not None}


def _parents(table: Table, row: Row) -> dict[str, list[int | float | str | None]]:
    keys = {name: row.values.get(name) for name in table.references}
    return {name: json.loads(key) for name, key in keys.items() if isinstance(key, str)}


def _can_travel(table: Table, row: Row) -> bool:
    try:
        check_fits(table, row.values)
    except PoisonRowError:
        return False
    return all(
        not isinstance(value, bytes) and not (isinstance(value, float) and not math.isfinite(value))
        for value in row.values.values()
    )
