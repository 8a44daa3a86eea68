"""Typed access to apsw: the types of results are narrowed here and nowhere else."""

from collections.abc import Iterator, Mapping, Sequence
from typing import cast

import apsw

#: A SQLite value.
Value = int | float | str | bytes | None
Bindings = Sequence[Value] | Mapping[str, Value]
#: The least and the largest rowid that there can be.
FIRST_ROWID, LAST_ROWID = -(1 << 63), (1 << 63) - 1


class RowRefusedError(Exception):
    """A row that a table's constraints or types forbid; the statement changed nothing. Internal to the merge."""


class Connection:
    """A connection to one database file. Its text that is not UTF-8 raises UnicodeDecodeError."""

    def __init__(self, apsw_connection: apsw.Connection) -> None:
        self.apsw = apsw_connection

    def each(self, sql: str, bindings: Bindings = ()) -> Iterator[tuple[Value, ...]]:
        """Yield the rows that a statement returns."""
        found = self.apsw.execute(sql, bindings)  # pyright: ignore[reportUnknownMemberType] - apsw's stub names Python 3.12's Buffer
        return cast("Iterator[tuple[Value, ...]]", found)

    def rows(self, sql: str, bindings: Bindings = ()) -> list[tuple[Value, ...]]:
        """Return the rows that a statement returns."""
        return list(self.each(sql, bindings))

    def row(self, sql: str, bindings: Bindings = ()) -> tuple[Value, ...] | None:
        """Return the first row, None when there is none."""
        for row in self.each(sql, bindings):
            return row
        return None

    def exists(self, sql: str, bindings: Bindings = ()) -> bool:
        """Whether a query finds anything."""
        return self.row(sql, bindings) is not None

    def number(self, sql: str, bindings: Bindings = ()) -> int:
        """Return the first row's first column as a number, 0 if it is not one."""
        row = self.row(sql, bindings)
        return row[0] if row and isinstance(row[0], int) else 0

    def numbers(self, sql: str, bindings: Bindings = ()) -> list[int]:
        """Return the numbers in the first column."""
        return [row[0] for row in self.each(sql, bindings) if isinstance(row[0], int)]

    def texts(self, sql: str, bindings: Bindings = ()) -> list[str]:
        """Return the texts in the first column."""
        return [row[0] for row in self.each(sql, bindings) if isinstance(row[0], str)]

    def run(self, sql: str, bindings: Bindings = ()) -> None:
        """Run statements and discard their rows."""
        for _ in self.each(sql, bindings):
            pass

    def write(self, sql: str, bindings: Bindings) -> None:
        """Write one row. Raises RowRefusedError when the table forbids it."""
        try:
            self.run(sql, bindings)
        except (apsw.ConstraintError, apsw.MismatchError, apsw.TooBigError) as error:
            raise RowRefusedError(str(error)) from error

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        return not self.apsw.get_autocommit()

    def close(self) -> None:
        """Close the connection; an open transaction is rolled back."""
        self.apsw.close()
