"""The rows of the engine's effects. A task that changes in the transaction of its insert is inserted changed."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from schemas.leases import Lease
from schemas.results import Artifact, Result
from schemas.tasks import Task
from services.coordinator.engine.effects import (
    Effect,
    LeaseChanged,
    NewArtifact,
    NewLease,
    NewResult,
    NewTask,
    NewWorker,
    Noted,
    TaskChanged,
    WorkerDrained,
    WorkerRemoved,
)
from services.coordinator.engine.machine import TaskState
from services.coordinator.store.statements import (
    DELETE_WORKER,
    INSERT_ARTIFACT,
    INSERT_AUDIT,
    INSERT_LEASE,
    INSERT_RESULT,
    INSERT_TASK,
    INSERT_WORKER,
    UPDATE_LEASE,
    UPDATE_TASK,
    UPDATE_WORKER,
)
from services.database.statements import Row, Statement, Value, Write


def writes_of(effects: Iterable[Effect]) -> list[Write]:
    """Return the writes of those effects that are rows."""
    writes, fresh = list[Write](), dict[str, dict[str, Value]]()
    for effect in effects:
        if isinstance(effect, TaskChanged):
            if (row := fresh.get(effect.task.id)) is not None:
                row.update(_changing(effect.task, effect.at))
            else:
                writes.append(Write(UPDATE_TASK, {"id": effect.task.id, **_changing(effect.task, effect.at)}))
        elif isinstance(effect, NewTask):
            row = fresh[effect.task.id] = _task_row(effect.task, effect.state)
            writes.append(Write(INSERT_TASK, row))
        elif (known := _ROWS.get(type(effect))) is not None:
            statement, row_of = known
            writes.append(Write(statement, row_of(effect)))
    return writes


def _changing(task: TaskState, at: str) -> dict[str, Value]:
    return {
        "status": task.status.value,
        "updated_at": at,
        "not_before": task.not_before,
        "lease_id": task.lease_id,
        "worker_id": task.worker_id,
        "attempts": task.attempts,
        "interruptions": task.interruptions,
        "reason": task.reason,
    }


def _task_row(task: Task, state: TaskState) -> dict[str, Value]:
    return {
        "seq": state.seq,
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
        **_changing(state, task.updated_at),
    }


def _lease_row(lease: Lease) -> Row:
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


def _lease_update(lease: Lease) -> Row:
    return {
        "id": lease.id,
        "status": lease.status.value,
        "expires_at": lease.expires_at,
        "last_heartbeat": lease.last_heartbeat,
    }


def _result_row(result: Result, lease_id: str, session: str | None) -> Row:
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
        "session": session,
    }


def _artifact_row(artifact: Artifact, object_key: str | None) -> Row:
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


def _audit_row(noted: Noted) -> Row:
    return {
        "timestamp": noted.at,
        "action": noted.action,
        "entity_type": noted.entity_type,
        "entity_id": noted.entity_id,
        "actor": noted.actor,
        "detail": noted.detail,
    }


def _worker_row(seen: NewWorker) -> Row:
    return {"id": seen.worker_id, "registered_at": seen.at, "drained": 0}


def _drained_row(changed: WorkerDrained) -> Row:
    return {"id": changed.worker_id, "drained": int(changed.drained)}


#: The statement and the row of each effect that is always one row.
_ROWS: dict[type, tuple[Statement, Callable[[Any], Row]]] = {
    NewLease: (INSERT_LEASE, lambda effect: _lease_row(effect.lease)),
    LeaseChanged: (UPDATE_LEASE, lambda effect: _lease_update(effect.lease)),
    NewResult: (INSERT_RESULT, lambda effect: _result_row(effect.result, effect.lease_id, effect.session)),
    NewArtifact: (INSERT_ARTIFACT, lambda effect: _artifact_row(effect.artifact, effect.object_key)),
    Noted: (INSERT_AUDIT, _audit_row),
    NewWorker: (INSERT_WORKER, _worker_row),
    WorkerDrained: (UPDATE_WORKER, _drained_row),
    WorkerRemoved: (DELETE_WORKER, lambda effect: {"id": effect.worker_id}),
}


def _text(items: Sequence[str]) -> str:
    return msgspec.json.encode(items).decode()
