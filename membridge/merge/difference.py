"""Which rows of two databases differ, found by SQLite at the speed of its comparisons.

A row that both have is not a difference, wherever it lies. Each row is looked up at its own rowid first
(two states of one database agree there) and then through an index; a table in which too many rows share what the index
knows is compared by sums instead, so that nothing is ever quadratic.
"""

import hashlib
from array import array
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from membridge.claudemem.sql import Connection
from membridge.claudemem.tables import Table, expression, quoted, shared_columns, travelling_tables
from membridge.merge.rows import CROWDED, Key, Reader

_PROBES = {
    "sdk_sessions": "content_session_id",
    "observations": "created_at_epoch",
    "session_summaries": "created_at_epoch",
    "user_prompts": "created_at_epoch",
}


@dataclass(frozen=True, slots=True)
class TableDifference:
    """The rows, by rowid, that only one of two databases has, and the columns that were compared."""

    ours: Table
    theirs: Table
    columns: tuple[str, ...]
    only_ours: tuple[int, ...]
    only_theirs: tuple[int, ...]

    @property
    def is_empty(self) -> bool:
        """Whether both have the same rows."""
        return not self.only_ours and not self.only_theirs

    def keys(self, connection: Connection) -> list[Key]:
        """Return the keys of the buckets with a difference, in the order of theirs, then of ours."""
        ours, theirs = Reader(connection, self.ours), Reader(connection, self.theirs, "theirs")
        found = [theirs.key(rowid) for rowid in self.only_theirs]
        found += [ours.key(rowid) for rowid in self.only_ours]
        return list(dict.fromkeys(key for key in found if key is not None))


def difference(connection: Connection) -> list[TableDifference]:
    """Compare the connection's `main` with the attached `theirs`, table by table, sessions first.

    A table that one side lacks is left out: it is a difference of versions. Runs in a transaction of the caller's if
    there is one.
    """
    is_own = not connection.in_transaction
    if is_own:
        connection.run("BEGIN")
    try:
        ours, theirs = travelling_tables(connection), travelling_tables(connection, "theirs")
        return [_compare(connection, table, theirs[name]) for name, table in ours.items() if name in theirs]
    finally:
        if is_own:
            connection.run("COMMIT")


def _compare(connection: Connection, ours: Table, theirs: Table) -> TableDifference:
    columns = shared_columns(ours, theirs)
    probe = _probe(connection, ours, theirs)
    if probe is None:
        only_ours, only_theirs = _by_sums(connection, ours, theirs, columns)
    else:
        only_ours, only_theirs = _by_index(connection, ours, theirs, (columns, probe))
    return TableDifference(ours, theirs, columns, only_ours, only_theirs)


def _probe(connection: Connection, ours: Table, theirs: Table) -> str | None:
    """Return the column through whose index rows are looked for, None when there is no good one."""
    column = _PROBES.get(ours.name, ours.key[0])
    if column not in ours.indexed or column not in theirs.indexed:
        return None
    for schema in ("main", "theirs"):
        groups = f"SELECT 1 FROM {schema}.{quoted(ours.name)} GROUP BY {quoted(column)} HAVING count(*) > ? LIMIT 1"  # noqa: S608 - names from the schema, quoted
        if connection.exists(groups, (CROWDED,)):
            return None
    return column


def _by_index(
    connection: Connection, ours: Table, theirs: Table, how: tuple[tuple[str, ...], str]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    columns, probe = how
    # The plus keeps SQLite from choosing another index, in which a session may have thousands of rows.
    equal = " AND ".join(
        f"+{expression(theirs, column, alias='y', schema='theirs')} IS +{expression(ours, column, alias='x')}"
        for column in sorted(columns, key=lambda column: column in ours.references)
        if column != probe
    )
    mine, other, indexed = f"main.{quoted(ours.name)} x", f"theirs.{quoted(ours.name)} y", quoted(probe)
    here = f"SELECT 1 FROM {other} WHERE y.rowid = x.rowid AND +y.{indexed} IS x.{indexed} AND {equal}"  # noqa: S608 - names from the schema, quoted
    anywhere = f"SELECT y.rowid FROM {other} WHERE y.{indexed} IS x.{indexed} AND {equal} LIMIT 1"  # noqa: S608 - names from the schema, quoted
    # Only rows that lie elsewhere, or nowhere, are held in memory; a busy memory has a million rows.
    only_ours, unmatched, matches = list[int](), array("q"), array("q")
    elsewhere = (
        f"SELECT x.rowid, ({anywhere}), EXISTS (SELECT 1 FROM {other} WHERE y.rowid = x.rowid) "  # noqa: S608 - names from the schema, quoted
        f"FROM {mine} WHERE NOT EXISTS ({here})"
    )
    for rowid, match, is_there in connection.each(elsewhere):
        if isinstance(match, int):
            matches.append(match)
        elif isinstance(rowid, int):
            only_ours.append(rowid)
        if is_there and isinstance(rowid, int):
            unmatched.append(rowid)
    foreign = f"SELECT y.rowid FROM {other} WHERE NOT EXISTS (SELECT 1 FROM {mine} WHERE x.rowid = y.rowid)"  # noqa: S608 - names from the schema, quoted
    unmatched.extend(connection.numbers(foreign))
    taken = array("q", sorted(matches))
    # A row that ours has as the match of another one is theirs' second copy of it.
    back = (
        f"SELECT 1 FROM {other} WHERE y.rowid = ? AND EXISTS "  # noqa: S608 - names from the schema, quoted
        f"(SELECT 1 FROM {mine} WHERE x.{indexed} IS y.{indexed} AND {equal})"
    )
    only_theirs = [
        rowid for rowid in sorted(unmatched) if not _has(taken, rowid) and not connection.exists(back, (rowid,))
    ]
    return tuple(only_ours), tuple(only_theirs)


def _has(ordered: Sequence[int], number: int) -> bool:
    at = bisect_left(ordered, number)
    return at < len(ordered) and ordered[at] == number


def _by_sums(
    connection: Connection, ours: Table, theirs: Table, columns: tuple[str, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    held = _sums(connection, ours, columns, "main")
    known = _sums(connection, theirs, columns, "theirs")
    ours_sums, theirs_sums = set(held.values()), set(known.values())
    return (
        tuple(rowid for rowid, total in held.items() if total not in theirs_sums),
        tuple(rowid for rowid, total in known.items() if total not in ours_sums),
    )


def _sums(connection: Connection, table: Table, columns: tuple[str, ...], schema: str) -> dict[int, bytes]:
    values = (expression(table, column, alias="t", schema=schema) for column in columns)
    # Each value as one unambiguous literal; text in hex, because quote() ends at a NUL.
    literals = " || ',' || ".join(f"CASE typeof({v}) WHEN 'text' THEN hex({v}) ELSE quote({v}) END" for v in values)
    sums: dict[int, bytes] = {}
    for rowid, literal in connection.each(f"SELECT t.rowid, {literals} FROM {schema}.{quoted(table.name)} t"):  # noqa: S608 - names from the schema, quoted
        if isinstance(rowid, int) and isinstance(literal, str):
            sums[rowid] = hashlib.blake2b(literal.encode(), digest_size=16).digest()
    return sums
