"""Snapshots on the wire: the commit record of one `seq`, the head, and what push and pull answer.

The commit record is the truth in the object store; the head in KV is the same fact, faster. Either can be rebuilt
from the other.
"""

from enum import StrEnum
from typing import Annotated

from msgspec import Meta

from schemas.fields import MANY, Instant, Line, Number, Sentence, Text, Whole
from schemas.identity import Epoch, Seq, Sha256, WireNodeId, WireProjectId
from schemas.wire import Wire

#: Version of the layout in the object store; a reader refuses every other one.
FORMAT = 2


class SnapshotKind(StrEnum):
    """Content of a commit: all rows, the rows that changed, or only a new epoch."""

    FULL = "full"
    DELTA = "delta"
    EMPTY = "empty"


class SnapshotObject(Wire, frozen=True, kw_only=True):
    """The stored bytes of one snapshot: their key, hash and size."""

    key: Sentence
    sha256: Sha256
    size_bytes: Whole


class Rollup(Wire, frozen=True, kw_only=True):
    """A delta from an earlier state: what the commits after `after_seq`, up to the one that names it, changed together.

    `after_sha256` is the state that it begins at.
    """

    after_seq: Seq
    after_sha256: Sha256
    object: SnapshotObject


class SnapshotRecord(Wire, frozen=True, kw_only=True):
    """The commit record of one seq, put into the object store only if absent.

    `sha256` names the state that results, over the sums of its tables; `rows` are its rows per table that travel, and
    `size_bytes` is what it takes on the committing node's disk. `object` is None exactly for an empty commit.
    `full_seq` is the full snapshot the chain of this one starts at, `full_bytes` the size of its object, `chain_bytes`
    the size of all deltas of the chain. Each of `rollups` leads to this state from an earlier one of the chain.
    `device_id` is the claude-mem device of the committing node, if known.
    """

    format: Number = FORMAT
    project: WireProjectId
    seq: Seq
    epoch: Epoch
    parent_seq: Seq
    parent_sha256: Sha256 | None = None
    kind: SnapshotKind
    sha256: Sha256
    size_bytes: Whole = 0
    object: SnapshotObject | None = None
    full_seq: Seq = 0
    full_bytes: Whole = 0
    chain_bytes: Whole = 0
    rows: Annotated[dict[Line, Whole], MANY] = {}
    node: WireNodeId
    device_id: Text | None = None
    created_at: Instant
    nonce: Line
    rollups: Annotated[list[Rollup], Meta(max_length=16)] = []

    def objects(self) -> list[SnapshotObject]:
        """Return the objects of this commit: its own, and its rollups."""
        return [*([self.object] if self.object else []), *(rollup.object for rollup in self.rollups)]


class Head(Wire, frozen=True, kw_only=True):
    """The newest snapshot of a project, as its KV entry: the commit record itself."""

    record: SnapshotRecord


class PushRequest(Wire, frozen=True, kw_only=True):
    """Push the node's memory: commit on a primary, propose on a secondary (`snapshot` insists on a commit).

    Two overrides travel with the request: `force` takes the push lock over (FORCE_PUSH), `allow_secondary` lets a
    secondary commit a snapshot (ALLOW_SECONDARY_PUSH).
    """

    snapshot: bool = False
    allow_shrink: bool = False
    force: bool = False
    allow_secondary: bool = False


class PushOutcome(StrEnum):
    """Outcome of a push."""

    COMMITTED = "committed"
    PROPOSED = "proposed"
    UNCHANGED = "unchanged"
    DRY_RUN = "dry_run"


class PushReply(Wire, frozen=True, kw_only=True):
    """What a push did: the seq it committed or the proposal it submitted, rows and bytes sent."""

    outcome: PushOutcome
    seq: Seq | None = None
    epoch: Epoch | None = None
    kind: SnapshotKind | None = None
    proposal_id: Line | None = None
    rows: Whole = 0
    uploaded_bytes: Whole = 0
    seconds: float = 0.0
    job_id: Line = ""


class PullRequest(Wire, frozen=True, kw_only=True):
    """Bring the node's memory up to the head; `replace` replaces the database after a backup instead of merging.

    `allow_primary` is the override ALLOW_PRIMARY_PULL_OVERRIDE: a primary's database may be replaced too.
    """

    replace: bool = False
    allow_primary: bool = False


class PullOutcome(StrEnum):
    """Outcome of a pull."""

    MERGED = "merged"
    INSTALLED = "installed"
    REPLACED = "replaced"
    UNCHANGED = "unchanged"
    TOOK_PROPOSALS = "took_proposals"
    DRY_RUN = "dry_run"


class PullReply(Wire, frozen=True, kw_only=True):
    """What a pull did: the seq it reached and the rows it wrote into the live database.

    `set_aside` is the path of the damaged database that `replace` moved away.
    """

    outcome: PullOutcome
    seq: Seq = 0
    inserted: Whole = 0
    updated: Whole = 0
    deleted: Whole = 0
    conflicts: Whole = 0
    proposals: Whole = 0
    unsynced: Whole = 0
    downloaded_bytes: Whole = 0
    backup: Sentence | None = None
    set_aside: Sentence | None = None
    seconds: float = 0.0
    job_id: Line = ""


class Backup(Wire, frozen=True, kw_only=True):
    """What the live database was before a write; its `id` never changes.

    It holds a `full_copy`, or the former content of the `rows` that the write touched, or both.
    """

    path: Sentence
    size_bytes: Whole
    created_at: Instant
    reason: Sentence
    id: Line = ""
    full_copy: bool = True
    rows: Whole = 0


class BackupsReply(Wire, frozen=True, kw_only=True):
    """Backups of a project, newest first."""

    backups: Annotated[list[Backup], MANY] = []
