"""Every write of the task runtime, each one statement that takes many rows at once."""

from collections.abc import Sequence

from sqlalchemy import bindparam, delete, insert

from services.coordinator.store.tables import artifacts, audit, leases, results, tasks, workers
from services.database.statements import Statement, update_by_id

INSERT_TASK = Statement("insert task", insert(tasks))
UPDATE_TASK = Statement(
    "update task",
    update_by_id(
        tasks, "status", "updated_at", "not_before", "lease_id", "worker_id", "attempts", "interruptions", "reason"
    ),
    key="b_id",
)
INSERT_LEASE = Statement("insert lease", insert(leases))
UPDATE_LEASE = Statement("update lease", update_by_id(leases, "status", "expires_at", "last_heartbeat"), key="b_id")
INSERT_RESULT = Statement("insert result", insert(results))
INSERT_ARTIFACT = Statement("insert artifact", insert(artifacts))
INSERT_WORKER = Statement("insert worker", insert(workers))
UPDATE_WORKER = Statement("update worker", update_by_id(workers, "drained"), key="b_id")
DELETE_WORKER = Statement("delete worker", delete(workers).where(workers.c.id == bindparam("b_id")), key="b_id")
INSERT_AUDIT = Statement("insert audit", insert(audit))

#: The sequence within a transaction: a row before the rows that name it, and a delete before an insert of the same key.
STATEMENTS: Sequence[Statement] = (
    INSERT_TASK, UPDATE_TASK, INSERT_LEASE, UPDATE_LEASE, INSERT_ARTIFACT, INSERT_RESULT,
    DELETE_WORKER, INSERT_WORKER, UPDATE_WORKER, INSERT_AUDIT,
)  # fmt: skip
