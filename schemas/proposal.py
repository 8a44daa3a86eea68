"""Proposals on the wire: rows that a secondary holds and the canonical memory does not.

The rows themselves are an object (a zstd-compressed `ProposalBundle`); the work queue carries the announcement.
"""

from typing import Annotated

from msgspec import Meta

from schemas.fields import Line
from schemas.identity import Seq, Sha256, WireNodeId, WireProjectId
from schemas.wire import Wire

#: A value of a SQLite column that JSON has too; a row with a blob does not travel.
Value = int | float | str | None


class ProposedRow(Wire, frozen=True, kw_only=True):
    """One row of `table` as its columns and values.

    `base` is the row that the proposing node last saw in canonical memory, None for a row that is new; `row` is None
    for a deletion. `parents` gives, for each remapped foreign key column, the natural key of the row it points at.
    `local_id` is the rowid in the proposing database.
    """

    table: str
    row: dict[str, Value] | None
    base: dict[str, Value] | None = None
    parents: dict[str, list[Value]] = {}
    local_id: int | None = None


class ProposalBundle(Wire, frozen=True, kw_only=True):
    """All rows of one proposal, sessions before what belongs to them."""

    format: int = 1
    project: WireProjectId
    node: WireNodeId
    device_id: str | None = None
    base_seq: Seq
    rows: list[ProposedRow]


class ProposalAnnouncement(Wire, frozen=True, kw_only=True):
    """What stands in the work queue: which object holds the proposal. `id` is the start of the bundle's sha256."""

    id: Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z")]
    project: WireProjectId
    node: WireNodeId
    key: str
    sha256: Sha256
    size_bytes: int
    rows: int
    submitted_at: str


class Quarantined(Wire, frozen=True, kw_only=True):
    """A row, object or proposal set aside because it could not be taken in: kept, listed, retried or dropped."""

    id: str
    kind: str
    subject: str
    reason: str
    attempts: int
    created_at: str


class QuarantineAction(Wire, frozen=True, kw_only=True):
    """What to do with quarantined items: `list`, `retry` or `drop`; `id` names one, None means all (list only)."""

    action: Annotated[str, Meta(pattern=r"^(list|retry|drop)\Z")] = "list"
    id: Line | None = None


class QuarantineReply(Wire, frozen=True, kw_only=True):
    """The items that the action concerned."""

    items: list[Quarantined] = []


class ConflictSide(Wire, frozen=True, kw_only=True):
    """One version of a row that both sides changed."""

    origin: str
    row: dict[str, Value] | None


class Conflict(Wire, frozen=True, kw_only=True):
    """A row that two nodes changed differently: the version that stayed and the one kept only in this journal."""

    id: int
    table: str
    key: list[Value]
    kept: ConflictSide
    lost: ConflictSide
    at: str


class ConflictsReply(Wire, frozen=True, kw_only=True):
    """The journal, newest first."""

    conflicts: list[Conflict] = []
