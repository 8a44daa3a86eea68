"""Runs: every attempt at a task, past and present."""

from enum import StrEnum
from typing import Annotated

from schemas.fields import MANY, FreeName, Instant, Limit, Named, Slug, Text, Uuid, Whole
from schemas.wire import Wire


class RunStatus(StrEnum):
    """State of a run. `returned`: the worker returned the task, or it was cancelled; there is no result."""

    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    EXPIRED = "expired"
    RETURNED = "returned"


class Run(Wire, frozen=True, kw_only=True):
    """One attempt at a task, under the lease of the same id, with what its result says."""

    id: Uuid
    task_id: Uuid
    worker_id: Slug
    context_id: FreeName
    status: RunStatus
    started_at: Instant
    ended_at: Instant | None = None
    duration_ms: Whole | None = None
    tokens_used: Whole | None = None
    error_message: Text | None = None
    artifact_id: Uuid | None = None


class RunsRequest(Wire, frozen=True, kw_only=True):
    """Which runs to list, newest first; `before` is the id after which the last page ended."""

    status: RunStatus | None = None
    task_id: Named | None = None
    worker_id: Slug | None = None
    limit: Limit = 100
    before: Named | None = None


class RunsReply(Wire, frozen=True, kw_only=True):
    """Runs, newest first."""

    runs: Annotated[list[Run], MANY] = []
    more: bool = False
