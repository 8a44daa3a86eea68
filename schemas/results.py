"""Output of attempts: results and artifacts."""

from enum import StrEnum
from typing import Annotated

from schemas.fields import MANY, Instant, Limit, Named, Number, Slug, Text, Uuid, Whole
from schemas.tasks import Task
from schemas.wire import Wire


class ResultStatus(StrEnum):
    """How an attempt ended."""

    SUCCESS = "success"
    ERROR = "error"


class ArtifactType(StrEnum):
    """Kind of an artifact."""

    LLM_RESULT = "LLM_RESULT"


class Metrics(Wire, frozen=True, kw_only=True):
    """Cost of an attempt."""

    duration_ms: Number
    tokens_used: Number | None = None


class Result(Wire, frozen=True, kw_only=True):
    """How a task's accepted attempt ended: success has an output, error a message."""

    id: Uuid
    task_id: Uuid
    worker_id: Slug
    artifact_id: Uuid | None = None
    status: ResultStatus
    output: Text | None = None
    error_message: Text | None = None
    metrics: Metrics
    completed_at: Instant


class Artifact(Wire, frozen=True, kw_only=True):
    """Output of a task, immutable. Small content is in `content`; large content is at `url` until that expires."""

    id: Uuid
    task_id: Uuid
    job_id: Uuid
    type: ArtifactType = ArtifactType.LLM_RESULT
    created_at: Instant
    finalized: bool = True
    url: Text | None = None
    entity_refs: Annotated[list[Text], MANY] = []
    tags: Annotated[list[Text], MANY] = []
    content: Text | None = None
    #: Where the rest of the content begins, where one answer does not hold it.
    next_offset: Whole | None = None


class ResultReply(Wire, frozen=True, kw_only=True):
    """A task with its result, when it has one, and its artifact."""

    task: Task
    result: Result | None = None
    artifact: Artifact | None = None


class ArtifactsRequest(Wire, frozen=True, kw_only=True):
    """Which artifacts to list, newest first."""

    task_id: Named | None = None
    limit: Limit = 100


class ArtifactRequest(Wire, frozen=True, kw_only=True):
    """Names an artifact, and where in its content to begin, in bytes."""

    id: Named
    offset: Whole = 0


class ArtifactsReply(Wire, frozen=True, kw_only=True):
    """Artifacts, newest first, without their content."""

    artifacts: Annotated[list[Artifact], MANY] = []
