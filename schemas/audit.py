"""The coordinator's audit log and its counts."""

from typing import Annotated

from msgspec import Meta

from schemas.fields import Limit, Number
from schemas.wire import Wire


class AuditRecord(Wire, frozen=True, kw_only=True):
    """One change: what happened to what, by whom, and why."""

    id: int
    timestamp: str
    action: str
    entity_type: str
    entity_id: str
    actor: str
    detail: str = ""


class AuditRequest(Wire, frozen=True, kw_only=True):
    """Which records to list, newest first."""

    entity_id: Annotated[str, Meta(max_length=64)] | None = None
    limit: Limit = 100
    before: Number | None = None


class AuditReply(Wire, frozen=True, kw_only=True):
    """Records, newest first."""

    records: list[AuditRecord] = []


class StatsReply(Wire, frozen=True, kw_only=True):
    """How much there is of everything; `leader` schedules, `answered_by` is who was asked."""

    tasks: dict[str, int] = {}
    workers: dict[str, int] = {}
    active_leases: Number = 0
    leader: str = ""
    answered_by: str = ""
    database: str = ""
