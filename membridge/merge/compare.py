"""What became of a memory between two states: rows that came, went and changed, counted, and some of them named.

Looks at two files; `None` is a memory without a row.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from membridge.aio.deadline import Deadline
from membridge.claudemem.connection import open_frozen, open_frozen_pair, open_to_compare
from membridge.claudemem.sql import Connection
from membridge.claudemem.tables import Table, quoted, travelling_tables
from membridge.merge.conflicts import plain_row
from membridge.merge.difference import TableDifference, difference
from membridge.merge.rows import Reader, key_of, shape_of
from membridge.merge.three_way import Row, edits
from schemas.commits import RowChange, RowDiff, TableDiff
from schemas.wire import shortened

#: Characters of a row's first words.
TITLE = 120
#: Columns that say what a row is about, the best first.
_ABOUT = {
    "sdk_sessions": ("user_prompt", "custom_title", "project", "content_session_id"),
    "observations": ("title", "subtitle", "narrative", "text"),
    "session_summaries": ("request", "learned", "completed", "investigated"),
    "user_prompts": ("prompt_text",),
}
_TURNED = {RowChange.CAME: RowChange.WENT, RowChange.WENT: RowChange.CAME}


@dataclass(slots=True)
class Comparison:
    """Rows that differ, by table, and the first of them."""

    counts: dict[str, dict[RowChange, int]] = field(default_factory=dict[str, dict[RowChange, int]])
    rows: list[RowDiff] = field(default_factory=list[RowDiff])

    @property
    def listed_all(self) -> bool:
        """Whether every row that differs is named."""
        return len(self.rows) == sum(sum(counts.values()) for counts in self.counts.values())

    def tables(self) -> list[TableDiff]:
        """Return the tables with a difference."""
        return [
            TableDiff(
                table=name,
                came=counts.get(RowChange.CAME, 0),
                went=counts.get(RowChange.WENT, 0),
                changed=counts.get(RowChange.CHANGED, 0),
                kept=counts.get(RowChange.KEPT, 0),
            )
            for name, counts in self.counts.items()
        ]

    def count(self, table: str, change: RowChange) -> None:
        """Count a row."""
        counts = self.counts.setdefault(table, {})
        counts[change] = counts.get(change, 0) + 1

    def add(self, table: Table, before: Row | None, after: Row | None, limit: int) -> None:
        """Count a row that became another one, and name it if fewer than `limit` are named."""
        change = RowChange.CHANGED if before and after else RowChange.CAME if after else RowChange.WENT
        row = after or before
        if row is None:
            return
        self.count(table.name, change)
        if len(self.rows) < limit:
            self.rows.append(_described(table, change, row, before if after else None))

    def turned(self) -> "Comparison":
        """Return what became of the newer state in the older one."""
        return Comparison(
            {
                table: {_TURNED.get(change, change): number for change, number in counts.items()}
                for table, counts in self.counts.items()
            },
            [msgspec.structs.replace(row, change=_TURNED.get(row.change, row.change)) for row in self.rows],
        )


def compare(
    older: Path | None, newer: Path | None, *, limit: int, is_live: bool = False, deadline: Deadline
) -> Comparison:
    """Return what became of `older` in `newer`; `limit` rows are named, all are counted. Errors: the database's.

    No program writes the two files meanwhile, except `newer` if it `is_live`.
    """
    if older is None or newer is None:
        change = RowChange.CAME if older is None else RowChange.WENT
        return _of_one(newer or older, change, limit=limit, deadline=deadline)
    found = Comparison()
    opened = open_to_compare if is_live else open_frozen_pair
    with opened(newer, older, deadline=deadline) as connection:
        for one in difference(connection):
            for before, after in _edits(connection, one):
                found.add(one.ours, before, after, limit)
        ours, theirs = travelling_tables(connection), travelling_tables(connection, "theirs")
        for name in ours.keys() - theirs.keys():
            _add_all(found, Reader(connection, ours[name]), RowChange.CAME, limit)
        for name in theirs.keys() - ours.keys():
            _add_all(found, Reader(connection, theirs[name], "theirs"), RowChange.WENT, limit)
    return found


def _of_one(path: Path | None, change: RowChange, *, limit: int, deadline: Deadline) -> Comparison:
    found = Comparison()
    if path is not None:
        with open_frozen(path, deadline=deadline) as connection:
            for table in travelling_tables(connection).values():
                _add_all(found, Reader(connection, table), change, limit)
    return found


def _edits(connection: Connection, one: TableDifference) -> Iterator[tuple[Row | None, Row | None]]:
    ours, theirs = Reader(connection, one.ours), Reader(connection, one.theirs, "theirs")
    shape = shape_of(one.ours, one.columns)
    for key in one.keys(connection) if not one.is_empty else ():
        yield from edits(theirs.bucket(key), ours.bucket(key), shape)


def _add_all(found: Comparison, reader: Reader, change: RowChange, limit: int) -> None:
    source = f"{reader.schema}.{quoted(reader.table.name)}"
    count = reader.connection.number(f"SELECT count(*) FROM {source}")  # noqa: S608 - quoted
    if not count:
        return
    left = max(0, limit - len(found.rows))
    for rowid in reader.connection.numbers(f"SELECT rowid FROM {source} LIMIT ?", (left,)):  # noqa: S608 - quoted
        row = reader.row(rowid)
        if row is not None:
            found.rows.append(_described(reader.table, change, row))
    found.counts.setdefault(reader.table.name, {})[change] = count


def _described(table: Table, change: RowChange, row: Row, before: Row | None = None) -> RowDiff:
    columns = (
        [] if before is None else [c for c, v in row.values.items() if c in before.values and before.values[c] != v]
    )
    return RowDiff(
        table=table.name,
        change=change,
        key=list(plain_row(dict(zip(table.key, key_of(table, row.values), strict=True))).values()),
        title=_title(table, row),
        columns=columns,
    )


def _title(table: Table, row: Row) -> str:
    return first_words(table.name, row.values, (*table.identity, *table.key))


def first_words(table: str, values: Mapping[str, object], others: Iterable[str] = ()) -> str:
    """Return what a row is about: the text of the best of its columns, or of `others`."""
    for column in (*_ABOUT.get(table, ()), *others):
        value = values.get(column)
        if isinstance(value, str) and value.strip():
            return shortened(" ".join(value.split()), TITLE)
    return ""
