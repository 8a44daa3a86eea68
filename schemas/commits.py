"""A memory's past on the wire: its commits, tags, differences, and what a look at all of it found.

A `state` is named by a seq, by `head`, by a tag, by `@` and an instant (the newest commit that is not younger), or by
`0`, which is no memory at all.
"""

from enum import StrEnum
from typing import Annotated

from msgspec import Meta

from schemas.fields import Line
from schemas.identity import Epoch, Seq, Sha256, WireNodeId, WireProjectId
from schemas.node import Finding
from schemas.snapshot import SnapshotRecord
from schemas.wire import Wire

#: Commits of one answer: a thousand of them would not fit into a message.
MOST_RECORDS = 500
#: Rows that one comparison lists.
MOST_ROWS = 1000

#: A tag's name: one token that is no seq and not `head`.
TagName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}\Z")]


class Tag(Wire, frozen=True, kw_only=True):
    """A name for a snapshot, kept in the object store. What is tagged is kept for ever."""

    project: WireProjectId
    name: TagName
    seq: Seq
    sha256: Sha256
    node: WireNodeId
    created_at: str


class TagAct(StrEnum):
    """What to do with a tag."""

    LIST = "list"
    SET = "set"
    DELETE = "delete"


class TagAction(Wire, frozen=True, kw_only=True):
    """List tags, set `name` to `state`, or delete it; `move` takes it from another snapshot."""

    action: TagAct = TagAct.LIST
    name: Line = ""
    state: Line = "head"
    move: bool = False


class TagsReply(Wire, frozen=True, kw_only=True):
    """The tags that were asked for, in the order of their names."""

    tags: list[Tag] = []


class RowChanges(Wire, frozen=True, kw_only=True):
    """By how many rows each table of one commit grew (or shrank) against its parent."""

    seq: Seq
    tables: dict[str, int] = {}


class HistoryRequest(Wire, frozen=True, kw_only=True):
    """The newest `limit` commits, of those older than `before` where that is given."""

    limit: Annotated[int, Meta(ge=1, le=MOST_RECORDS)] = 20
    before: Seq | None = None


class HistoryReply(Wire, frozen=True, kw_only=True):
    """Commits, newest first, with their tags; `changes` lacks commits whose parent is not kept any more."""

    records: list[SnapshotRecord] = []
    changes: list[RowChanges] = []
    tags: list[Tag] = []


class VerifyRequest(Wire, frozen=True, kw_only=True):
    """Verify all that is kept, or the chain up to `seq`; `sample` reads only so many objects, chosen at random."""

    seq: Seq | None = None
    sample: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None


class VerifyFinding(Wire, frozen=True, kw_only=True):
    """One thing that is not as it should be; seq 0 where no commit is concerned."""

    finding: Finding
    seq: Seq = 0
    what: str
    detail: str
    remedy: str = ""


class VerifyReply(Wire, frozen=True, kw_only=True):
    """What was looked at, and what was found; sound when no finding is a failure."""

    findings: list[VerifyFinding] = []
    head_seq: Seq = 0
    records: int = 0
    chains: int = 0
    restored: int = 0
    objects: int = 0
    read_objects: int = 0
    read_bytes: int = 0
    truncated: bool = False
    seconds: float = 0.0
    job_id: str = ""


class Ancestors(Wire, frozen=True, kw_only=True):
    """Commits whose records are gone, as columns: their seq, epoch, and the sha256 of their database."""

    project: WireProjectId
    seqs: list[Seq] = []
    epochs: list[Epoch] = []
    sha256: list[Sha256] = []


class GcRequest(Wire, frozen=True, kw_only=True):
    """Delete what is not kept; `dry_run` only says what would go."""

    dry_run: bool = False


class GcReply(Wire, frozen=True, kw_only=True):
    """What went, or would go: snapshots with their first thousand seqs, and objects and proposals nobody needs.

    `kept` counts the snapshots that the policy keeps, without those that are only needed to restore them.
    """

    dry_run: bool = False
    head_seq: Seq = 0
    kept: int = 0
    snapshots: int = 0
    orphans: int = 0
    proposals: int = 0
    freed_bytes: int = 0
    seqs: list[Seq] = []
    seconds: float = 0.0
    job_id: str = ""


class RowChange(StrEnum):
    """What became of a row between two states; a restore keeps rows that no snapshot has."""

    CAME = "came"
    WENT = "went"
    CHANGED = "changed"
    KEPT = "kept"


class TableDiff(Wire, frozen=True, kw_only=True):
    """How many rows of a table came, went and changed, and how many a restore keeps that no snapshot has."""

    table: str
    came: int = 0
    went: int = 0
    changed: int = 0
    kept: int = 0


class RowDiff(Wire, frozen=True, kw_only=True):
    """One row that came, went or changed: its natural key, its first words, and the columns that changed."""

    table: str
    change: RowChange
    key: list[int | float | str | None] = []
    title: str = ""
    columns: list[str] = []


class DiffRequest(Wire, frozen=True, kw_only=True):
    """What became of the memory between two states; at most `limit` rows are listed, all are counted."""

    older: Line = "0"
    newer: Line = "head"
    limit: Annotated[int, Meta(ge=0, le=MOST_ROWS)] = 100


class DiffReply(Wire, frozen=True, kw_only=True):
    """Tables with a difference, and rows; `listed_all` when no row was left out."""

    older_seq: Seq = 0
    newer_seq: Seq = 0
    tables: list[TableDiff] = []
    rows: list[RowDiff] = []
    listed_all: bool = True
    seconds: float = 0.0
    job_id: str = ""


class ExtractRequest(Wire, frozen=True, kw_only=True):
    """Make a database file of a state, in a folder of the node's own."""

    state: Line = "head"


class ExtractReply(Wire, frozen=True, kw_only=True):
    """The file, which the node deletes after a day, and what it is."""

    path: str
    seq: Seq
    created_at: str = ""
    rows: int = 0
    size_bytes: int = 0
    seconds: float = 0.0
    job_id: str = ""


class RestoreRequest(Wire, frozen=True, kw_only=True):
    """Make the memory what it was at `state`, by a new snapshot; without `apply` only say what would change.

    At most `limit` of the rows are listed, all are counted.
    """

    state: Line = "head"
    apply: bool = False
    limit: Annotated[int, Meta(ge=0, le=MOST_ROWS)] = 0


class RestoreReply(Wire, frozen=True, kw_only=True):
    """What a restore changes in the node's database, or did; `seq` is the new snapshot, or the head where it stays.

    `unsynced` rows are in no snapshot and stay. `commits` when the result becomes a new snapshot, as it
    does on a primary unless it is the newest one's memory.
    """

    applied: bool = False
    state_seq: Seq = 0
    head_seq: Seq = 0
    seq: Seq = 0
    commits: bool = False
    tables: list[TableDiff] = []
    rows: list[RowDiff] = []
    listed_all: bool = True
    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    conflicts: int = 0
    unsynced: int = 0
    backup: str | None = None
    seconds: float = 0.0
    job_id: str = ""


#: The backup that is meant where the newest sound one is.
NEWEST = "newest"


class RestoreBackupRequest(Wire, frozen=True, kw_only=True):
    """Make the node's database what it was in a backup; without `apply` only say what would change.

    At most `limit` of the rows are listed, all are counted.
    """

    backup: Annotated[str, Meta(min_length=1, max_length=255)] = NEWEST
    apply: bool = False
    limit: Annotated[int, Meta(ge=0, le=MOST_ROWS)] = 0


class RestoreBackupReply(Wire, frozen=True, kw_only=True):
    """What putting a backup back changes in the node's database, or did.

    `damage` says what is wrong with that database, nothing where it is sound; `saved` is the backup that was taken of
    it, `set_aside` the file it became if it is damaged. `open_in` names programs that have the database open now.
    """

    applied: bool = False
    backup: str = ""
    created_at: str = ""
    tables: list[TableDiff] = []
    rows: list[RowDiff] = []
    listed_all: bool = True
    damage: str = ""
    saved: str | None = None
    set_aside: str | None = None
    open_in: list[str] = []
    seconds: float = 0.0
    job_id: str = ""


class RecoverySource(StrEnum):
    """What a lost head is rebuilt from: the object store, this node's mirror, or its live database."""

    STORE = "store"
    MIRROR = "mirror"
    DATABASE = "database"


class RecoverRequest(Wire, frozen=True, kw_only=True):
    """Make both stores say the same again after one of them lost its memory, or both did.

    `preview` says what is lost and what would be committed instead, and changes nothing.
    """

    source: RecoverySource = RecoverySource.STORE
    preview: bool = False


class RecoverReply(Wire, frozen=True, kw_only=True):
    """The head after that; `committed` when it is a new full snapshot, `rebuilt` when NATS did not know it.

    Of a preview `seq` is what this node's mirror has.
    """

    source: RecoverySource
    seq: Seq
    epoch: Epoch
    committed: bool = False
    rebuilt: bool = False
    lost: str = ""
    rows: int = 0
    uploaded_bytes: int = 0
    seconds: float = 0.0
    job_id: str = ""
