"""Every write of the task runtime, each one statement that is given many rows at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import BindParameter, Executable, Table, bindparam, delete, insert, update

from services.database.tables import artifacts, audit, leases, results, tasks, workers

Value = str | int | float | None
Row = Mapping[str, Value]


@dataclass(frozen=True, slots=True, eq=False)
class Statement:
    """A write. `key` names the parameter by which a later row of one transaction replaces an earlier one."""

    name: str
    sql: Executable
    key: str | None = None


def _update(table: Table, *columns: str) -> Executable:
    values: dict[str, BindParameter[Any]] = {column: bindparam(f"b_{column}") for column in columns}
    return update(table).where(table.c.id == bindparam("b_id")).values(values)


INSERT_TASK = Statement("insert task", insert(tasks))
UPDATE_TASK = Statement(
    "update task",
    _update(
        tasks, "status", "updated_at", "not_before", "lease_id", "worker_id", "attempts", "interruptions", "reason"
    ),
    key="b_id",
)
INSERT_LEASE = Statement("insert lease", insert(leases))
UPDATE_LEASE = Statement("update lease", _update(leases, "status", "expires_at", "last_heartbeat"), key="b_id")
INSERT_RESULT = Statement("insert result", insert(results))
INSERT_ARTIFACT = Statement("insert artifact", insert(artifacts))
INSERT_WORKER = Statement("insert worker", insert(workers))
UPDATE_WORKER = Statement("update worker", _update(workers, "drained"), key="b_id")
DELETE_WORKER = Statement("delete worker", delete(workers).where(workers.c.id == bindparam("b_id")), key="b_id")
INSERT_AUDIT = Statement("insert audit", insert(audit))

#: The order within a transaction: what is named by others comes first, and what makes room for it before that.
ORDER: Sequence[Statement] = (
    INSERT_TASK, UPDATE_TASK, INSERT_LEASE, UPDATE_LEASE, INSERT_ARTIFACT, INSERT_RESULT,
    DELETE_WORKER, INSERT_WORKER, UPDATE_WORKER, INSERT_AUDIT,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Write:
    """One row for one statement."""

    statement: Statement
    row: Row
