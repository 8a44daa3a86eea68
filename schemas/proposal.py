"""Proposals on the wire: rows that a secondary holds and the canonical memory does not.

The rows themselves are an object (a zstd-compressed `ProposalBundle`); the work queue carries the announcement.
"""

from enum import StrEnum
from typing import Annotated

from msgspec import Meta

from schemas.commits import MOST_ROWS, RowDiff, TableDiff
from schemas.fields import MANY, Instant, Int64, Line, Number, Sentence, Text, Value, Whole
from schemas.identity import Seq, Sha256, WireNodeId, WireProjectId
from schemas.wire import Wire

#: A row as its columns and values.
Row = Annotated[dict[Line, Value], MANY]


class ProposedRow(Wire, frozen=True, kw_only=True):
    """One row of `table` as its columns and values.

    `base` is the row that the proposing node last saw in canonical memory, None for a row that is new; `row` is None
    for a deletion. `parents` gives, for each remapped foreign key column, the natural key of the row it points at.
    `local_id` is the rowid in the proposing database.
    """

    table: Line
    row: Row | None
    base: Row | None = None
    parents: Annotated[dict[Line, Annotated[list[Value], MANY]], MANY] = {}
    local_id: Int64 | None = None


class ProposalBundle(Wire, frozen=True, kw_only=True):
    """All rows of one proposal, sessions before what belongs to them."""

    format: Number = 1
    project: WireProjectId
    node: WireNodeId
    device_id: Text | None = None
    base_seq: Seq
    rows: Annotated[list[ProposedRow], MANY]


class ProposalAnnouncement(Wire, frozen=True, kw_only=True):
    """The entry in the work queue: which object holds the proposal. `id` is the start of the bundle's sha256."""

    id: Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z")]
    project: WireProjectId
    node: WireNodeId
    key: Sentence
    sha256: Sha256
    size_bytes: Whole
    rows: Whole
    submitted_at: Instant


class Quarantined(Wire, frozen=True, kw_only=True):
    """A row, object or proposal that could not be merged: kept, listed, retried or dropped."""

    id: Text
    kind: Line
    subject: Text
    reason: Text
    attempts: Whole
    created_at: Instant


class QuarantineAction(Wire, frozen=True, kw_only=True):
    """What to do with quarantined items: `list`, `retry` or `drop`; `id` names one, None means all (list only)."""

    action: Annotated[str, Meta(pattern=r"^(list|retry|drop)\Z")] = "list"
    id: Line | None = None


class QuarantineReply(Wire, frozen=True, kw_only=True):
    """The items that the action applied to."""

    items: Annotated[list[Quarantined], MANY] = []


class ConflictSide(Wire, frozen=True, kw_only=True):
    """One version of a row that both sides changed."""

    origin: Sentence
    row: Row | None


class Conflict(Wire, frozen=True, kw_only=True):
    """A row that two nodes changed differently: the version that stayed and the one kept only in this journal."""

    id: Whole
    table: Line
    key: Annotated[list[Value], MANY]
    kept: ConflictSide
    lost: ConflictSide
    at: Instant


class ConflictsReply(Wire, frozen=True, kw_only=True):
    """The journal, newest first."""

    conflicts: Annotated[list[Conflict], MANY] = []


class UnsyncedRequest(Wire, frozen=True, kw_only=True):
    """Which rows of a node the canonical memory lacks; at most `limit` are listed, all are counted."""

    limit: Annotated[int, Meta(ge=0, le=MOST_ROWS)] = 100


class Waiting(StrEnum):
    """What rows wait for that the canonical memory lacks."""

    NOTHING = "nothing"
    #: They were written a moment ago.
    QUIET = "quiet"
    #: A push or a pull is running.
    JOB = "job"
    #: They were offered to the primary.
    PRIMARY = "primary"
    #: No node leads.
    LEADER = "leader"
    #: The node does not push by itself.
    PUSH = "push"
    #: The last push failed.
    RETRY = "retry"


class UnsyncedReply(Wire, frozen=True, kw_only=True):
    """Rows that the canonical memory lacks, or has otherwise: counted by table, the first ones named, and why."""

    total: Whole = 0
    tables: Annotated[list[TableDiff], MANY] = []
    rows: Annotated[list[RowDiff], MANY] = []
    listed_all: bool = True
    waiting: Waiting = Waiting.NOTHING
    reason: Text = ""
    remedy: Text = ""
