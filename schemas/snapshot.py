"""Snapshots on the wire: the commit record of one `seq`, the head, and what push and pull answer.

The commit record is the truth in the object store; the head in KV is the same fact, faster. Either can be rebuilt
from the other.
"""

from enum import StrEnum
from typing import Annotated

from msgspec import Meta

from schemas.identity import Epoch, Seq, Sha256, WireNodeId, WireProjectId
from schemas.wire import Wire

#: Version of the layout in the object store; a reader refuses a newer one.
FORMAT = 1


class SnapshotKind(StrEnum):
    """What a commit brought: a whole file, changed pages, or only a new epoch."""

    FULL = "full"
    DELTA = "delta"
    EMPTY = "empty"


class SnapshotObject(Wire, frozen=True, kw_only=True):
    """The stored bytes of one snapshot: where they are and how to know them."""

    key: str
    sha256: Sha256
    size_bytes: Annotated[int, Meta(ge=0)]


class SnapshotRecord(Wire, frozen=True, kw_only=True):
    """The commit record of one seq, put into the object store only if absent.

    `sha256`, `page_size` and `page_count` describe the resulting database file, `rows` its rows per table that travel.
    `object` is None exactly for an empty commit. `full_seq` is the full snapshot the chain of this one starts at,
    `full_bytes` the size of its object, `chain_bytes` what the chain's deltas weigh together.
    `device_id` is the claude-mem device of the committing node, if known.
    """

    format: int = FORMAT
    project: WireProjectId
    seq: Seq
    epoch: Epoch
    parent_seq: Seq
    parent_sha256: Sha256 | None = None
    kind: SnapshotKind
    sha256: Sha256
    page_size: int
    page_count: int
    object: SnapshotObject | None = None
    full_seq: Seq = 0
    full_bytes: int = 0
    chain_bytes: int = 0
    rows: dict[str, int] = {}
    node: WireNodeId
    device_id: str | None = None
    created_at: str
    nonce: str


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
    """What a push ended in."""

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
    proposal_id: str | None = None
    rows: int = 0
    uploaded_bytes: int = 0
    seconds: float = 0.0
    job_id: str = ""


class PullRequest(Wire, frozen=True, kw_only=True):
    """Bring the node's memory up to the head; `replace` replaces the database after a backup instead of merging.

    `allow_primary` is the override ALLOW_PRIMARY_PULL_OVERRIDE: a primary's database may be replaced too.
    """

    replace: bool = False
    allow_primary: bool = False


class PullOutcome(StrEnum):
    """What a pull ended in."""

    MERGED = "merged"
    INSTALLED = "installed"
    REPLACED = "replaced"
    UNCHANGED = "unchanged"
    TOOK_PROPOSALS = "took_proposals"
    DRY_RUN = "dry_run"


class PullReply(Wire, frozen=True, kw_only=True):
    """What a pull did: the seq it reached and the rows it wrote into the live database.

    `set_aside` is where a damaged database is kept that `replace` put another one in the place of.
    """

    outcome: PullOutcome
    seq: Seq = 0
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    conflicts: int = 0
    proposals: int = 0
    unsynced: int = 0
    downloaded_bytes: int = 0
    backup: str | None = None
    set_aside: str | None = None
    seconds: float = 0.0
    job_id: str = ""


class Backup(Wire, frozen=True, kw_only=True):
    """A file kept before a write to the live database; its `id` stays what it is."""

    path: str
    size_bytes: int
    created_at: str
    reason: str
    id: str = ""


class BackupsReply(Wire, frozen=True, kw_only=True):
    """Backups of a project, newest first."""

    backups: list[Backup] = []
