"""Every write of the task runtime, each one statement that takes many rows at once."""

from collections.abc import Sequence

from services.coordinator.store.tables import artifacts, audit, leases, results, tasks, workers
from services.database.statements import Statement, delete_by_id, insert_into, update_by_id

#: The tenure numbers tasks itself: their order is that of its decisions.
INSERT_TASK = insert_into(tasks)
UPDATE_TASK = update_by_id(
    tasks, "status", "updated_at", "not_before", "lease_id", "worker_id", "attempts", "interruptions", "reason"
)
INSERT_LEASE = insert_into(leases)
UPDATE_LEASE = update_by_id(leases, "status", "expires_at", "last_heartbeat")
INSERT_RESULT = insert_into(results, numbered="seq")
INSERT_ARTIFACT = insert_into(artifacts, numbered="seq")
INSERT_WORKER = insert_into(workers)
UPDATE_WORKER = update_by_id(workers, "drained")
DELETE_WORKER = delete_by_id(workers)
INSERT_AUDIT = insert_into(audit, numbered="id")

#: The sequence within a transaction: a row before what changes it, and a delete before an insert of the same key.
STATEMENTS: Sequence[Statement] = (
    INSERT_TASK, INSERT_LEASE, INSERT_ARTIFACT, INSERT_RESULT, INSERT_AUDIT, UPDATE_TASK, UPDATE_LEASE,
    DELETE_WORKER, INSERT_WORKER, UPDATE_WORKER,
)  # fmt: skip
