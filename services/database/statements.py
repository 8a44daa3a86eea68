"""What a write is: one row for one statement. Each service declares its statements in its store."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from sqlalchemy import Table

Value = str | int | float | None
Row = Mapping[str, Value]


class Verb(Enum):
    """What a statement does."""

    INSERT = "insert"
    UPDATE = "update"
    DELETE = "delete"


@dataclass(frozen=True, slots=True, eq=False)
class Statement:
    """A write of many rows to one table; `columns` are the names that each of the rows has.

    An update and a delete find their row by `id`; of several of one row in a transaction the last one counts.
    """

    verb: Verb
    table: Table
    columns: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Write:
    """One row for one statement."""

    statement: Statement
    row: Row


def insert_into(table: Table, *, numbered: str | None = None) -> Statement:
    """Return an insert; the database counts the column `numbered` itself."""
    return Statement(Verb.INSERT, table, tuple(column.name for column in table.columns if column.name != numbered))


def update_by_id(table: Table, *columns: str) -> Statement:
    """Return an update of `columns` in the row of an id."""
    return Statement(Verb.UPDATE, table, (*columns, "id"))


def delete_by_id(table: Table) -> Statement:
    """Return a delete of the row of an id."""
    return Statement(Verb.DELETE, table, ("id",))
