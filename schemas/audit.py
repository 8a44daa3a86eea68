"""The coordinator's audit log and its counts."""

from typing import Annotated

from msgspec import Meta

from schemas.fields import MANY, Instant, Limit, Line, Number, Sentence, Text, Whole
from schemas.wire import Wire


class AuditRecord(Wire, frozen=True, kw_only=True):
    """One change: what happened to what, by whom, and why."""

    id: Whole
    timestamp: Instant
    action: Line
    entity_type: Line
    entity_id: Line
    actor: Sentence
    detail: Text = ""


class AuditRequest(Wire, frozen=True, kw_only=True):
    """Which records to list, newest first."""

    entity_id: Annotated[str, Meta(max_length=64)] | None = None
    limit: Limit = 100
    before: Number | None = None


class AuditReply(Wire, frozen=True, kw_only=True):
    """Records, newest first."""

    records: Annotated[list[AuditRecord], MANY] = []


class StatsReply(Wire, frozen=True, kw_only=True):
    """Counts of tasks, workers and leases; `leader` schedules, `answered_by` is the coordinator that replied.

    `ended_by_agent` and `ended_by_worker` count the attempts that ended within the last minute, of the newest 10,000.
    """

    tasks: Annotated[dict[Line, Whole], MANY] = {}
    workers: Annotated[dict[Line, Whole], MANY] = {}
    active_leases: Number = 0
    leader: Line = ""
    answered_by: Line = ""
    database: Sentence = ""
    ended_by_agent: Annotated[dict[Line, Whole], MANY] = {}
    ended_by_worker: Annotated[dict[Line, Whole], MANY] = {}
