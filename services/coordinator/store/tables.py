"""The tables of the task runtime. `migrations` creates them; a test compares the two.

Times are ISO 8601 text in UTC of one width, so that they sort; lists and objects are JSON text. Rows are never deleted,
except workers that an operator removes.
"""

from sqlalchemy import Column, Float, Index, Integer, MetaData, String, Table, Text

metadata = MetaData()

tasks = Table(
    "tasks",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("id", String(36), nullable=False, unique=True),
    Column("context_id", String(200), nullable=False),
    Column("agent_slug", String(200), nullable=False),
    Column("prompt", Text, nullable=False),
    Column("context_hints", Text, nullable=False),
    Column("timeout_sec", Integer, nullable=False),
    Column("budget", Integer, nullable=False),
    Column("desired_format", String(8), nullable=False),
    Column("max_attempts", Integer, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("idempotency_key", String(128), unique=True),
    Column("labels", Text, nullable=False),
    Column("created_at", String(32), nullable=False),
    Column("status", String(16), nullable=False),
    Column("updated_at", String(32), nullable=False),
    Column("not_before", Float, nullable=False),
    Column("lease_id", String(36)),
    Column("worker_id", String(64)),
    Column("attempts", Integer, nullable=False),
    Column("interruptions", Integer, nullable=False),
    Column("reason", Text, nullable=False),
)
Index("tasks_status", tasks.c.status, tasks.c.seq)
Index("tasks_context", tasks.c.context_id, tasks.c.seq)

leases = Table(
    "leases",
    metadata,
    Column("id", String(36), primary_key=True),
    Column("task_id", String(36), nullable=False),
    Column("worker_id", String(64), nullable=False),
    Column("context_id", String(200), nullable=False),
    Column("started_at", String(32), nullable=False),
    Column("expires_at", String(32), nullable=False),
    Column("ttl_seconds", Integer, nullable=False),
    Column("status", String(16), nullable=False),
    Column("last_heartbeat", String(32), nullable=False),
)
Index("leases_status", leases.c.status)
Index("leases_task", leases.c.task_id)
Index("leases_started", leases.c.started_at, leases.c.id)

results = Table(
    "results",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("id", String(36), nullable=False, unique=True),
    Column("task_id", String(36), nullable=False),
    #: The lease of the attempt; results of the first release have none.
    Column("lease_id", String(36)),
    Column("worker_id", String(64), nullable=False),
    Column("artifact_id", String(36)),
    Column("status", String(16), nullable=False),
    Column("output", Text),
    Column("error_message", Text),
    Column("duration_ms", Integer, nullable=False),
    Column("tokens_used", Integer),
    Column("completed_at", String(32), nullable=False),
    #: The CLI's session, for the next task of the context.
    Column("session", String(128)),
)

Index("results_task", results.c.task_id, results.c.seq)
Index("results_lease", results.c.lease_id)

artifacts = Table(
    "artifacts",
    metadata,
    Column("seq", Integer, primary_key=True, autoincrement=True),
    Column("id", String(36), nullable=False, unique=True),
    Column("task_id", String(36), nullable=False),
    Column("job_id", String(36), nullable=False),
    Column("type", String(32), nullable=False),
    Column("created_at", String(32), nullable=False),
    Column("entity_refs", Text, nullable=False),
    Column("tags", Text, nullable=False),
    Column("content", Text),
    #: The object's key, for content that is too large for a row.
    Column("object_key", String(256)),
)
Index("artifacts_task", artifacts.c.task_id)

workers = Table(
    "workers",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("registered_at", String(32), nullable=False),
    Column("drained", Integer, nullable=False),
)

audit = Table(
    "audit",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("timestamp", String(32), nullable=False),
    Column("action", String(32), nullable=False),
    Column("entity_type", String(16), nullable=False),
    Column("entity_id", String(64), nullable=False),
    Column("actor", String(200), nullable=False),
    Column("detail", Text, nullable=False),
)
Index("audit_entity", audit.c.entity_id, audit.c.id)

#: One row: the epoch of the coordinator that schedules. A transaction of another epoch is rejected.
scheduling = Table(
    "scheduling",
    metadata,
    Column("name", String(16), primary_key=True),
    Column("epoch", Integer, nullable=False),
)
