"""What a write is: one row for one statement. Each service declares its statements in its store."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BindParameter, Executable, Table, bindparam, update

Value = str | int | float | None
Row = Mapping[str, Value]


@dataclass(frozen=True, slots=True, eq=False)
class Statement:
    """A write. `key` names the parameter by which a later row of one transaction replaces an earlier one."""

    name: str
    sql: Executable
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Write:
    """One row for one statement."""

    statement: Statement
    row: Row


def update_by_id(table: Table, *columns: str) -> Executable:
    """Return an update of `columns` in the row of an id; its parameters are the names with `b_` before them."""
    values: dict[str, BindParameter[Any]] = {column: bindparam(f"b_{column}") for column in columns}
    return update(table).where(table.c.id == bindparam("b_id")).values(values)
