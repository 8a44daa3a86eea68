"""Leases: the right of one worker to one attempt, and what the worker reports under it."""

from enum import StrEnum
from typing import Annotated

from msgspec import Meta

from schemas.fields import MANY, FreeName, Instant, Labels, Limit, Line, Named, Reason, Sentence, Slug, Uuid
from schemas.results import Metrics, ResultStatus
from schemas.tasks import Task
from schemas.wire import MAX_BODY_BYTES, Wire


class LeaseStatus(StrEnum):
    """State of a lease."""

    ACTIVE = "active"
    EXPIRED = "expired"
    RELEASED = "released"
    FAILED = "failed"


class Lease(Wire, frozen=True, kw_only=True):
    """The right of one worker to one attempt, until it expires."""

    id: Uuid
    task_id: Uuid
    worker_id: Slug
    started_at: Instant
    expires_at: Instant
    ttl_seconds: Annotated[int, Meta(ge=1, le=1_000_000)] = 300
    status: LeaseStatus = LeaseStatus.ACTIVE
    last_heartbeat: Instant
    context_id: FreeName


class Order(Wire, frozen=True, kw_only=True):
    """A task to run and its lease; `resumes` is the context's CLI session, if it has one."""

    task: Task
    lease: Lease
    resumes: Line | None = None


class Accepted(Wire, frozen=True, kw_only=True):
    """Whether the worker took the order, and why not."""

    accepted: bool
    reason: Sentence = ""


class Orders(Wire, frozen=True, kw_only=True):
    """Orders for one worker that were decided together."""

    orders: Annotated[list[Order], Meta(min_length=1, max_length=1_024)]


class OrderAnswers(Wire, frozen=True, kw_only=True):
    """The answers to orders, in their order."""

    answers: Annotated[list[Accepted], Meta(max_length=1_024)]


class LeaseRequest(Wire, frozen=True, kw_only=True):
    """A worker outside the nodes asks for a task: for `task_id`, or for the next one whose labels it has.

    Repeating the `nonce`, after a lost answer, returns the same lease.
    """

    worker_id: Slug
    task_id: Named | None = None
    labels: Labels = []
    nonce: Named | None = None


class Leased(Wire, frozen=True, kw_only=True):
    """The task and its lease, or why there is none."""

    order: Order | None = None
    reason: Line = ""


class LeaseClaim(Wire, frozen=True, kw_only=True):
    """Names a lease to renew, or to return with its `reason`."""

    lease_id: Uuid
    task_id: Uuid
    worker_id: Slug
    reason: Annotated[str, Meta(max_length=512)] = ""


class Report(LeaseClaim, frozen=True, kw_only=True):
    """The end of an attempt, under its lease. The context's next task resumes `session`, the CLI's."""

    status: ResultStatus
    output: Annotated[str, Meta(max_length=MAX_BODY_BYTES)] | None = None
    error_message: Reason | None = None
    metrics: Metrics
    #: How many parts of the output were sent before, where one message does not hold it.
    parts: Annotated[int, Meta(ge=0, le=1_024)] = 0
    session: Annotated[str, Meta(max_length=128)] | None = None


class OutputPart(LeaseClaim, frozen=True, kw_only=True):
    """A piece of an output that is too large for one message, sent before its report; `index` counts from 0."""

    index: Annotated[int, Meta(ge=0, lt=1_024)]
    text: Annotated[str, Meta(max_length=524_288)]


class LeasesRequest(Wire, frozen=True, kw_only=True):
    """Which leases to list, newest first: the active ones, those of another status, or all for null.

    `before` is the id after which the last page ended.
    """

    status: LeaseStatus | None = LeaseStatus.ACTIVE
    task_id: Named | None = None
    worker_id: Slug | None = None
    limit: Limit = 100
    before: Named | None = None


class LeasesReply(Wire, frozen=True, kw_only=True):
    """Leases, newest first."""

    leases: Annotated[list[Lease], MANY] = []
    more: bool = False
