"""Every query of the task runtime, and the conversion between its rows and the wire types.

Reads only: writes go through the group commit. Callers get wire types, never rows.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, cast

import msgspec
from sqlalchemy import Select, and_, func, or_, select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from membridge.aio.deadline import Deadline
from membridge.errors import NotFoundError
from membridge.system import clock
from schemas.audit import AuditRecord
from schemas.fields import MOST_NUMBER
from schemas.leases import Lease, LeasesRequest, LeaseStatus
from schemas.results import Artifact, Metrics, Result, ResultStatus
from schemas.runs import Run, RunsRequest, RunStatus
from schemas.tasks import OutputFormat, Policy, Task, TaskSpec, TaskStatus, Work
from services.coordinator.store.tables import artifacts, audit, leases, results, tasks, workers
from services.database.engine import to_its_end, unavailable
from services.database.statements import Row

#: Seconds that one query may take.
READ_SECONDS = 15.0
#: The last instant that a task may wait for, in seconds since 1970: the end of the year 9998.
LATEST = 253_370_764_799.0
#: Characters of a prompt in a list.
GLANCE = 200

#: A row by its columns' names.
_Columns = Mapping[str, Any]


def task_row(task: Task, *, not_before: float) -> Row:
    """Return a new task's row."""
    return {
        "id": task.id,
        "context_id": task.context_id,
        "agent_slug": task.agent_slug,
        "prompt": task.prompt,
        "context_hints": _text(task.context_hints),
        "timeout_sec": task.policy.timeout_sec,
        "budget": task.policy.budget,
        "desired_format": task.desired_format.value,
        "max_attempts": task.max_attempts,
        "priority": task.priority,
        "idempotency_key": task.idempotency_key,
        "labels": _text(task.labels),
        "created_at": task.created_at,
        "status": task.status.value,
        "updated_at": task.updated_at,
        "not_before": not_before,
        "lease_id": None,
        "worker_id": None,
        "attempts": 0,
        "interruptions": 0,
        "reason": "",
    }


def lease_row(lease: Lease) -> Row:
    """Return a new lease's row."""
    return {
        "id": lease.id,
        "task_id": lease.task_id,
        "worker_id": lease.worker_id,
        "context_id": lease.context_id,
        "started_at": lease.started_at,
        "expires_at": lease.expires_at,
        "ttl_seconds": lease.ttl_seconds,
        "status": lease.status.value,
        "last_heartbeat": lease.last_heartbeat,
    }


def result_row(result: Result, *, lease_id: str) -> Row:
    """Return the row of the result of an attempt."""
    return {
        "task_id": result.task_id,
        "lease_id": lease_id,
        "id": result.id,
        "worker_id": result.worker_id,
        "artifact_id": result.artifact_id,
        "status": result.status.value,
        "output": result.output,
        "error_message": result.error_message,
        "duration_ms": result.metrics.duration_ms,
        "tokens_used": result.metrics.tokens_used,
        "completed_at": result.completed_at,
    }


def artifact_row(artifact: Artifact, *, object_key: str | None) -> Row:
    """Return an artifact's row; `object_key` is where its content is when it is not in the row."""
    return {
        "id": artifact.id,
        "task_id": artifact.task_id,
        "job_id": artifact.job_id,
        "type": artifact.type.value,
        "created_at": artifact.created_at,
        "entity_refs": _text(artifact.entity_refs),
        "tags": _text(artifact.tags),
        "content": artifact.content,
        "object_key": object_key,
    }


class Queries:
    """The queries. Each raises UnavailableError when the database does not answer."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def task(self, task_id: str) -> Task:
        """Return a task. Raises NotFoundError."""
        rows = await self._rows(select(tasks).where(tasks.c.id == task_id))
        if not rows:
            raise NotFoundError(f"there is no task {task_id}")
        return to_task(rows[0])

    async def task_of_key(self, idempotency_key: str) -> Task | None:
        """Return the task that was submitted under a key."""
        rows = await self._rows(select(tasks).where(tasks.c.idempotency_key == idempotency_key))
        return to_task(rows[0]) if rows else None

    async def tasks(
        self, *, status: TaskStatus | None, context_id: str | None, limit: int, before: str | None
    ) -> list[Task]:
        """Return tasks, newest first, with the beginnings of their prompts."""
        query = select(tasks).order_by(tasks.c.seq.desc()).limit(limit)
        if status is not None:
            query = query.where(tasks.c.status == status.value)
        if context_id is not None:
            query = query.where(tasks.c.context_id == context_id)
        if before is not None:
            query = query.where(tasks.c.seq < select(tasks.c.seq).where(tasks.c.id == before).scalar_subquery())
        found = [to_task(row) for row in await self._rows(query)]
        return [msgspec.structs.replace(task, prompt=task.prompt[:GLANCE]) for task in found]

    async def live(self, statuses: Sequence[TaskStatus], *, after: int, limit: int) -> list[tuple[int, Task]]:
        """Return the tasks of these states with a seq above `after`, oldest first, their prompts left out."""
        columns = [column for column in tasks.c if column.name != "prompt"]
        query = (
            select(*columns)
            .where(tasks.c.status.in_([status.value for status in statuses]), tasks.c.seq > after)
            .order_by(tasks.c.seq)
            .limit(limit)
        )
        return [(int(row["seq"]), to_task({**row, "prompt": " "})) for row in await self._rows(query)]

    async def earlier(self, task_id: str, statuses: Collection[TaskStatus]) -> list[str]:
        """Return the ids of the tasks of a task's context, of these states, that were submitted before it."""
        own = select(tasks.c.context_id, tasks.c.seq).where(tasks.c.id == task_id).subquery()
        query = select(tasks.c.id).where(
            tasks.c.context_id == own.c.context_id,
            tasks.c.seq < own.c.seq,
            tasks.c.status.in_([status.value for status in statuses]),
        )
        return [str(row["id"]) for row in await self._rows(query)]

    async def active_leases(self) -> list[Lease]:
        """Return the active leases."""
        rows = await self._rows(select(leases).where(leases.c.status == LeaseStatus.ACTIVE.value))
        return [_lease(row) for row in rows]

    async def has_lease(self, lease_id: str) -> bool:
        """Whether a lease with this id ever existed."""
        return bool(await self._rows(select(leases.c.id).where(leases.c.id == lease_id)))

    async def leases(self, request: LeasesRequest) -> list[Lease]:
        """Return leases, newest first, and one more than the limit where there are more."""
        query = _page(select(leases), request.task_id, request.worker_id, request.before, request.limit)
        if request.status is not None:
            query = query.where(leases.c.status == request.status.value)
        return [_lease(row) for row in await self._rows(query)]

    async def runs(self, request: RunsRequest) -> list[Run]:
        """Return runs, newest first, and one more than the limit where there are more."""
        columns = [results.c[name] for name in ("duration_ms", "tokens_used", "error_message", "artifact_id")]
        outcome = results.c.status.label("outcome")
        joined = select(leases, *columns, outcome).outerjoin(results, results.c.lease_id == leases.c.id)
        query = _page(joined, request.task_id, request.worker_id, request.before, request.limit)
        if request.status is not None:
            query = query.where(_OF_STATUS[request.status])
        return [_run(row) for row in await self._rows(query)]

    async def result(self, task_id: str) -> Result | None:
        """Return the result of a task's last accepted attempt, None while it has none."""
        query = select(results).where(results.c.task_id == task_id).order_by(results.c.seq.desc()).limit(1)
        rows = await self._rows(query)
        return _result(rows[0]) if rows else None

    async def artifact(self, artifact_id: str) -> tuple[Artifact, str | None]:
        """Return an artifact and its object's key. Raises NotFoundError."""
        rows = await self._rows(select(artifacts).where(artifacts.c.id == artifact_id))
        if not rows:
            raise NotFoundError(f"there is no artifact {artifact_id}")
        return _artifact(rows[0]), rows[0]["object_key"]

    async def artifacts(self, *, task_id: str | None, limit: int) -> list[Artifact]:
        """Return artifacts, newest first, without content."""
        query = select(artifacts).order_by(artifacts.c.seq.desc()).limit(limit)
        if task_id is not None:
            query = query.where(artifacts.c.task_id == task_id)
        return [msgspec.structs.replace(_artifact(row), content=None) for row in await self._rows(query)]

    async def audit(self, *, entity_id: str | None, before: int | None, limit: int) -> list[AuditRecord]:
        """Return audit records, newest first."""
        query = select(audit).order_by(audit.c.id.desc()).limit(limit)
        if entity_id is not None:
            query = query.where(audit.c.entity_id == entity_id)
        if before is not None:
            query = query.where(audit.c.id < before)
        return [AuditRecord(**row) for row in await self._rows(query)]

    async def counts(self) -> dict[str, int]:
        """Return how many tasks there are of each status."""
        query: Select[*tuple[Any, ...]] = select(tasks.c.status, func.count().label("number")).group_by(tasks.c.status)
        return {str(row["status"]): int(row["number"]) for row in await self._rows(query)}

    async def known_workers(self) -> dict[str, tuple[str, bool]]:
        """Return when each worker was first seen, and whether an operator drains it."""
        rows = await self._rows(select(workers))
        return {str(row["id"]): (str(row["registered_at"]), bool(row["drained"])) for row in rows}

    async def _rows(self, query: "Select[*tuple[Any, ...]]") -> "Sequence[_Columns]":
        try:
            return await to_its_end(self._read(query))
        except (SQLAlchemyError, OSError) as error:
            raise unavailable(self._engine.url, error) from error

    async def _read(self, query: "Select[*tuple[Any, ...]]") -> "Sequence[_Columns]":
        async with Deadline.after(READ_SECONDS).scope("a query"), self._engine.connect() as connection:
            return cast("Sequence[_Columns]", (await connection.execute(query)).mappings().all())


#: Which leases, with their results, are runs of a status.
_OF_STATUS = {
    RunStatus.RUNNING: leases.c.status == LeaseStatus.ACTIVE.value,
    RunStatus.COMPLETED: results.c.status == ResultStatus.SUCCESS.value,
    RunStatus.FAILED: results.c.status == ResultStatus.ERROR.value,
    RunStatus.EXPIRED: leases.c.status == LeaseStatus.EXPIRED.value,
    RunStatus.RETURNED: and_(leases.c.status == LeaseStatus.RELEASED.value, results.c.id.is_(None)),
}
#: What a lease without a result says of its run.
_WITHOUT_RESULT = {
    LeaseStatus.ACTIVE: RunStatus.RUNNING,
    LeaseStatus.EXPIRED: RunStatus.EXPIRED,
    LeaseStatus.RELEASED: RunStatus.RETURNED,
    LeaseStatus.FAILED: RunStatus.FAILED,
}


def _page(
    query: "Select[*tuple[Any, ...]]", task_id: str | None, worker_id: str | None, before: str | None, limit: int
) -> "Select[*tuple[Any, ...]]":
    """Return one page of a query of leases."""
    query = query.order_by(leases.c.started_at.desc(), leases.c.id.desc()).limit(limit + 1)
    if task_id is not None:
        query = query.where(leases.c.task_id == task_id)
    if worker_id is not None:
        query = query.where(leases.c.worker_id == worker_id)
    if before is not None:
        last = leases.alias("last")
        at = select(last.c.started_at).where(last.c.id == before).scalar_subquery()
        query = query.where(or_(leases.c.started_at < at, and_(leases.c.started_at == at, leases.c.id < before)))
    return query


def new_task(spec: TaskSpec, task_id: str, *, at: str) -> Task:
    """Return the task that `spec` asks for; one without a context has its own, of its own name."""
    fields = {name: getattr(spec, name) for name in Work.__struct_fields__}
    fields["context_id"] = spec.context_id or task_id
    return Task(id=task_id, status=TaskStatus.QUEUED, created_at=at, updated_at=at, **fields)


def to_task(row: _Columns) -> Task:
    """Return a row of `tasks` as the wire type."""
    plain = {name: row[name] for name in _PLAIN_TASK_FIELDS}
    return Task(
        **plain,
        context_hints=msgspec.json.decode(str(row["context_hints"]), type=list[str]),
        labels=msgspec.json.decode(str(row["labels"]), type=list[str]),
        policy=Policy(timeout_sec=row["timeout_sec"], budget=min(row["budget"], MOST_NUMBER)),
        desired_format=OutputFormat(str(row["desired_format"])),
        status=TaskStatus(str(row["status"])),
        not_before=_stamp(float(str(row["not_before"]))),
    )


_APART = {"context_hints", "labels", "policy", "desired_format", "status", "not_before"}
_PLAIN_TASK_FIELDS = [name for name in Task.__struct_fields__ if name not in _APART]


def _lease(row: _Columns) -> Lease:
    fields = {name: row[name] for name in Lease.__struct_fields__ if name != "status"}
    return Lease(**fields, status=LeaseStatus(row["status"]))


def _run(row: _Columns) -> Run:
    fields = {name: row[name] for name in Run.__struct_fields__ if name not in {"status", "ended_at"}}
    lease, outcome = LeaseStatus(row["status"]), row["outcome"]
    status = _WITHOUT_RESULT[lease]
    if outcome is not None:
        status = RunStatus.COMPLETED if outcome == ResultStatus.SUCCESS.value else RunStatus.FAILED
    # A lease that ended says so with its last word.
    return Run(**fields, status=status, ended_at=None if lease is LeaseStatus.ACTIVE else row["last_heartbeat"])


def _result(row: _Columns) -> Result:
    fields = {name: row[name] for name in Result.__struct_fields__ if name not in {"metrics", "status"}}
    metrics = Metrics(duration_ms=row["duration_ms"], tokens_used=row["tokens_used"])
    return Result(**fields, status=ResultStatus(row["status"]), metrics=metrics)


def _artifact(row: _Columns) -> Artifact:
    fields = {name: row[name] for name in ("id", "task_id", "job_id", "created_at", "content")}
    return Artifact(
        **fields,
        entity_refs=msgspec.json.decode(row["entity_refs"], type=list[str]),
        tags=msgspec.json.decode(row["tags"], type=list[str]),
    )


def _stamp(seconds: float) -> str | None:
    return clock.stamp(min(seconds, LATEST)) if seconds else None


def _text(items: Sequence[str]) -> str:
    return msgspec.json.encode(items).decode()
