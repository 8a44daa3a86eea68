"""Every query of the task runtime, and the conversion between its rows and the wire types.

Reads only: writes go through the group commit. Callers get wire types, never rows.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple, cast

import msgspec
from sqlalchemy import ARRAY, Column, ColumnElement, Select, Text, and_, any_, func, literal, or_, select
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
from schemas.tasks import OutputFormat, Policy, Task, TaskFilter, TaskSpec, TasksRequest, TaskStatus, Work
from services.coordinator.store.tables import artifacts, audit, leases, results, tasks, workers
from services.coordinator.store.task_search import conditions, in_order
from services.database.engine import is_lost, to_its_end, unavailable

#: Seconds that one query may take.
READ_SECONDS = 15.0
#: The last instant that a task may wait for, in seconds since 1970: the end of the year 9998.
LATEST = 253_370_764_799.0
#: Characters of a prompt in a list.
GLANCE = 200

#: A row by its columns' names.
_Columns = Mapping[str, Any]
_WITHOUT_PROMPT = [column for column in tasks.c if column.name != "prompt"]


class RecordedTask(NamedTuple):
    """A task of the database, and its place among all tasks."""

    seq: int
    task: Task


class Queries:
    """The queries. Each raises UnavailableError when the database does not answer."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        # A query is one statement: the beginning and the end of a transaction would be two round trips for nothing.
        self._is_postgres = engine.dialect.name == "postgresql"
        self._reading = engine.execution_options(isolation_level="AUTOCOMMIT") if self._is_postgres else engine

    async def task(self, task_id: str) -> Task:
        """Return a task. Raises NotFoundError."""
        rows = await self._rows(select(tasks).where(tasks.c.id == task_id))
        if not rows:
            raise NotFoundError(f"there is no task {task_id}", remedy="list them: `membridge task list`")
        return to_task(rows[0])

    async def short_tasks(self, ids: Collection[str], *, longest: int) -> list[Task]:
        """Return those of these tasks that exist and have a prompt of so many characters at most."""
        query = select(tasks).where(self._among(tasks.c.id, ids), func.length(tasks.c.prompt) <= longest)
        return [to_task(row) for row in await self._rows(query)]

    def _among(self, column: "Column[str]", values: Collection[str]) -> "ColumnElement[bool]":
        """Return the condition of `IN` as one statement for any number of values, which is then prepared once."""
        if self._is_postgres:
            return column == any_(literal([*values], ARRAY(Text)))
        listed = func.json_each(msgspec.json.encode([*values]).decode()).table_valued("value")
        return column.in_(select(listed.c.value))

    async def recorded(self, task_ids: Collection[str]) -> dict[str, RecordedTask]:
        """Return those of these tasks that exist, by id, their prompts left out."""
        rows = await self._rows(select(*_WITHOUT_PROMPT).where(tasks.c.id.in_(task_ids)))
        return {str(row["id"]): RecordedTask(int(row["seq"]), to_task({**row, "prompt": " "})) for row in rows}

    async def tasks_of_keys(self, keys: Collection[str]) -> dict[str, str]:
        """Return the ids of the tasks that were submitted under these idempotency keys."""
        rows = await self._rows(select(tasks.c.idempotency_key, tasks.c.id).where(tasks.c.idempotency_key.in_(keys)))
        return {str(row["idempotency_key"]): str(row["id"]) for row in rows}

    async def last_seq(self) -> int:
        """Return the largest place that a task has."""
        rows = await self._rows(select(func.max(tasks.c.seq).label("seq")))
        return int(rows[0]["seq"] or 0)

    async def last_runs(self, *, since: str, limit: int) -> list[tuple[str, str, str | None]]:
        """Return context, worker and session of the newest results since an instant, oldest first."""
        query = (
            select(tasks.c.context_id, results.c.worker_id, results.c.session)
            .join(tasks, tasks.c.id == results.c.task_id)
            .where(results.c.completed_at >= since)
            .order_by(results.c.seq.desc())
            .limit(limit)
        )
        rows = await self._rows(query)
        return [(str(row["context_id"]), str(row["worker_id"]), row["session"]) for row in reversed(rows)]

    async def tasks(self, request: TasksRequest) -> list[Task]:
        """Return tasks in the order of the request, their prompts cut; one more than the limit if there are more."""
        query = in_order(select(tasks).where(*conditions(request)), request).limit(request.limit + 1)
        return [_at_a_glance(row) for row in await self._rows(query)]

    async def tasks_of(self, ids: Sequence[str]) -> list[Task]:
        """Return those of these tasks that exist, newest first, with the beginnings of their prompts."""
        query = select(tasks).where(tasks.c.id.in_(ids)).order_by(tasks.c.seq.desc())
        return [_at_a_glance(row) for row in await self._rows(query)]

    async def count(
        self, wanted: TaskFilter, *, of: Collection[TaskStatus] = (), through: str | None = None
    ) -> dict[str, int]:
        """Return how many tasks of a filter there are of each status."""
        query: Select[*tuple[Any, ...]] = (
            select(tasks.c.status, func.count().label("number"))
            .where(*conditions(wanted, of=of, through=through))
            .group_by(tasks.c.status)
        )
        return {str(row["status"]): int(row["number"]) for row in await self._rows(query)}

    async def statuses(self, ids: Sequence[str]) -> dict[str, TaskStatus]:
        """Return the states of those of these tasks that exist, by id, newest first."""
        query = select(tasks.c.id, tasks.c.status).where(tasks.c.id.in_(ids)).order_by(tasks.c.seq.desc())
        return {str(row["id"]): TaskStatus(str(row["status"])) for row in await self._rows(query)}

    async def ids(
        self,
        wanted: TaskFilter,
        *,
        of: Collection[TaskStatus],
        through: str | None,
        after: str | None = None,
        limit: int,
    ) -> list[str]:
        """Return the ids of the newest tasks of a filter, newest first; of those older than the task `after`."""
        found = conditions(wanted, of=of, through=through, after=after)
        query = select(tasks.c.id).where(*found).order_by(tasks.c.seq.desc()).limit(limit)
        return [str(row["id"]) for row in await self._rows(query)]

    async def live(self, statuses: Sequence[TaskStatus], *, after: int, limit: int) -> list[RecordedTask]:
        """Return the tasks of these states with a seq above `after`, oldest first, their prompts left out."""
        query = (
            select(*_WITHOUT_PROMPT)
            .where(tasks.c.status.in_([status.value for status in statuses]), tasks.c.seq > after)
            .order_by(tasks.c.seq)
            .limit(limit)
        )
        return [RecordedTask(int(row["seq"]), to_task({**row, "prompt": " "})) for row in await self._rows(query)]

    async def active_leases(self) -> list[Lease]:
        """Return the active leases."""
        rows = await self._rows(select(leases).where(leases.c.status == LeaseStatus.ACTIVE.value))
        return [_lease(row) for row in rows]

    async def leases_among(self, lease_ids: Collection[str]) -> set[str]:
        """Return those of these ids that a lease ever had."""
        return {str(row["id"]) for row in await self._rows(select(leases.c.id).where(leases.c.id.in_(lease_ids)))}

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
            raise NotFoundError(f"there is no artifact {artifact_id}", remedy="list them: `membridge artifact list`")
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
        return await self.count(TaskFilter())

    async def ended_since(self, since: str, *, limit: int) -> list[tuple[str, str]]:
        """Return agent and worker of each attempt that ended since an instant, of the newest ones."""
        newest = select(results).order_by(results.c.seq.desc()).limit(limit).subquery()
        query = (
            select(tasks.c.agent_slug, newest.c.worker_id)
            .join(tasks, tasks.c.id == newest.c.task_id)
            .where(newest.c.completed_at >= since)
        )
        return [(str(row["agent_slug"]), str(row["worker_id"])) for row in await self._rows(query)]

    async def known_workers(self) -> dict[str, tuple[str, bool]]:
        """Return when each worker was first seen, and whether an operator drains it."""
        rows = await self._rows(select(workers))
        return {str(row["id"]): (str(row["registered_at"]), bool(row["drained"])) for row in rows}

    async def _rows(self, query: "Select[*tuple[Any, ...]]") -> "Sequence[_Columns]":
        try:
            try:
                return await to_its_end(self._read(query))
            except SQLAlchemyError as error:
                if not is_lost(error):
                    raise
                # The pool has dropped all connections that are as old.
                return await to_its_end(self._read(query))
        except (SQLAlchemyError, OSError) as error:
            raise unavailable(self._engine.url, error) from error

    async def _read(self, query: "Select[*tuple[Any, ...]]") -> "Sequence[_Columns]":
        async with Deadline.after(READ_SECONDS).scope("a query"), self._reading.connect() as connection:
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


def _at_a_glance(row: _Columns) -> Task:
    task = to_task(row)
    return msgspec.structs.replace(task, prompt=task.prompt[:GLANCE])


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
