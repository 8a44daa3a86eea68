"""The history of a memory on the wire: its commits, tags, differences, and findings of `verify`.

A `state` is named by a seq, by `head`, by a tag, by `@` and an instant (the newest commit that is not younger), or by
`0`, the empty memory.
"""

from enum import StrEnum
from typing import Annotated

from msgspec import Meta

from schemas.fields import MANY, Change, Instant, Line, Sentence, Text, Value, Whole
from schemas.identity import Epoch, Seq, Sha256, WireNodeId, WireProjectId
from schemas.node import Finding
from schemas.snapshot import SnapshotRecord
from schemas.wire import Wire

#: Most commits of one answer; a thousand would not fit into a message.
MOST_RECORDS = 500
#: Most rows that one comparison lists.
MOST_ROWS = 1000

#: A tag's name: one token that is no seq and not `head`.
TagName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}\Z")]


class Tag(Wire, frozen=True, kw_only=True):
    """A name for a snapshot, kept in the object store. Tagged snapshots are never pruned."""

    project: WireProjectId
    name: TagName
    seq: Seq
    sha256: Sha256
    node: WireNodeId
    created_at: Instant


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
    """Tags, by name."""

    tags: Annotated[list[Tag], MANY] = []


class RowChanges(Wire, frozen=True, kw_only=True):
    """By how many rows each table of one commit grew (or shrank) against its parent."""

    seq: Seq
    tables: Annotated[dict[Line, Change], MANY] = {}


class HistoryRequest(Wire, frozen=True, kw_only=True):
    """The newest `limit` commits, of those older than `before` where that is given."""

    limit: Annotated[int, Meta(ge=1, le=MOST_RECORDS)] = 20
    before: Seq | None = None


class HistoryReply(Wire, frozen=True, kw_only=True):
    """Commits, newest first, with their tags; `changes` lacks commits whose parent was pruned."""

    records: Annotated[list[SnapshotRecord], MANY] = []
    changes: Annotated[list[RowChanges], MANY] = []
    tags: Annotated[list[Tag], MANY] = []


class VerifyRequest(Wire, frozen=True, kw_only=True):
    """Verify everything, or the chain up to `seq`; `sample` reads only that many objects, chosen at random."""

    seq: Seq | None = None
    sample: Annotated[int, Meta(ge=1, le=1_000_000)] | None = None


class VerifyFinding(Wire, frozen=True, kw_only=True):
    """One defect; seq 0 when it belongs to no commit."""

    finding: Finding
    seq: Seq = 0
    what: Sentence
    detail: Text
    remedy: Text = ""


class VerifyReply(Wire, frozen=True, kw_only=True):
    """What was verified and found; sound when no finding is a failure."""

    findings: Annotated[list[VerifyFinding], MANY] = []
    head_seq: Seq = 0
    records: Whole = 0
    chains: Whole = 0
    restored: Whole = 0
    objects: Whole = 0
    read_objects: Whole = 0
    read_bytes: Whole = 0
    truncated: bool = False
    seconds: float = 0.0
    job_id: Line = ""


class Ancestors(Wire, frozen=True, kw_only=True):
    """Pruned commits, as columns: their seq, epoch, and the sha256 of their database."""

    project: WireProjectId
    seqs: Annotated[list[Seq], MANY] = []
    epochs: Annotated[list[Epoch], MANY] = []
    sha256: Annotated[list[Sha256], MANY] = []


class GcRequest(Wire, frozen=True, kw_only=True):
    """Delete what retention does not keep; `dry_run` only lists it."""

    dry_run: bool = False


class GcReply(Wire, frozen=True, kw_only=True):
    """What was deleted, or would be: snapshots with their first thousand seqs, unreferenced objects and proposals.

    `kept` counts the snapshots that the policy keeps, without those that are only needed to restore them.
    """

    dry_run: bool = False
    head_seq: Seq = 0
    kept: Whole = 0
    snapshots: Whole = 0
    orphans: Whole = 0
    proposals: Whole = 0
    freed_bytes: Whole = 0
    seqs: Annotated[list[Seq], MANY] = []
    seconds: float = 0.0
    job_id: Line = ""


class RowChange(StrEnum):
    """How a row differs between two states; a restore keeps rows that no snapshot has."""

    CAME = "came"
    WENT = "went"
    CHANGED = "changed"
    KEPT = "kept"


class TableDiff(Wire, frozen=True, kw_only=True):
    """How many rows of a table came, went and changed, and how many a restore keeps that no snapshot has."""

    table: Line
    came: Whole = 0
    went: Whole = 0
    changed: Whole = 0
    kept: Whole = 0


class RowDiff(Wire, frozen=True, kw_only=True):
    """One row that came, went or changed: its natural key, its first words, and the columns that changed."""

    table: Line
    change: RowChange
    key: Annotated[list[Value], MANY] = []
    title: Text = ""
    columns: Annotated[list[Line], MANY] = []


class DiffRequest(Wire, frozen=True, kw_only=True):
    """Compare two states; at most `limit` rows are listed, all are counted."""

    older: Line = "0"
    newer: Line = "head"
    limit: Annotated[int, Meta(ge=0, le=MOST_ROWS)] = 100


class DiffReply(Wire, frozen=True, kw_only=True):
    """Tables with a difference, and rows; `listed_all` when no row was left out."""

    older_seq: Seq = 0
    newer_seq: Seq = 0
    tables: Annotated[list[TableDiff], MANY] = []
    rows: Annotated[list[RowDiff], MANY] = []
    listed_all: bool = True
    seconds: float = 0.0
    job_id: Line = ""


class ExtractRequest(Wire, frozen=True, kw_only=True):
    """Write a state to a database file, in a folder of the node."""

    state: Line = "head"


#: The name of the file of an extracted state; no other file of the node can be named.
ExtractedName = Annotated[str, Meta(pattern=r"^[0-9]{1,16}-[0-9a-f]{8}\.db\Z")]
#: Bytes of a file that one answer has: one message of NATS holds them as text.
MOST_PART = 512 << 10


class ExtractReply(Wire, frozen=True, kw_only=True):
    """The file, which the node deletes after a day, and its commit. `name` is what `read_extracted` takes."""

    path: Sentence
    name: Line = ""
    seq: Seq
    created_at: Instant = ""
    rows: Whole = 0
    size_bytes: Whole = 0
    seconds: float = 0.0
    job_id: Line = ""


class ReadExtractedRequest(Wire, frozen=True, kw_only=True):
    """Read a part of the file of an extracted state."""

    name: ExtractedName
    offset: Whole = 0


class ReadExtractedReply(Wire, frozen=True, kw_only=True):
    """A part of the file, empty after its end, and the size of the whole."""

    body: Annotated[bytes, Meta(max_length=MOST_PART)]
    size_bytes: Whole


class RestoreRequest(Wire, frozen=True, kw_only=True):
    """Restore the memory of `state` as a new snapshot; without `apply` only report what would change.

    At most `limit` of the rows are listed, all are counted.
    """

    state: Line = "head"
    apply: bool = False
    limit: Annotated[int, Meta(ge=0, le=MOST_ROWS)] = 0


class RestoreReply(Wire, frozen=True, kw_only=True):
    """What a restore changes in the node's database, or changed; `seq` is the new snapshot, or the head where it stays.

    `unsynced` rows are in no snapshot and stay. `commits` when the result becomes a new snapshot, as it
    does on a primary unless it is the newest one's memory.
    """

    applied: bool = False
    state_seq: Seq = 0
    head_seq: Seq = 0
    seq: Seq = 0
    commits: bool = False
    tables: Annotated[list[TableDiff], MANY] = []
    rows: Annotated[list[RowDiff], MANY] = []
    listed_all: bool = True
    inserted: Whole = 0
    updated: Whole = 0
    deleted: Whole = 0
    conflicts: Whole = 0
    unsynced: Whole = 0
    backup: Sentence | None = None
    seconds: float = 0.0
    job_id: Line = ""


#: Stands for the newest sound backup.
NEWEST = "newest"


class RestoreBackupRequest(Wire, frozen=True, kw_only=True):
    """Restore the node's database from a backup; without `apply` only report what would change.

    At most `limit` of the rows are listed, all are counted.
    """

    backup: Annotated[str, Meta(min_length=1, max_length=255)] = NEWEST
    apply: bool = False
    limit: Annotated[int, Meta(ge=0, le=MOST_ROWS)] = 0


class RestoreBackupReply(Wire, frozen=True, kw_only=True):
    """What restoring a backup changes in the node's database, or changed.

    `damage` says what is wrong with that database, empty when it is sound; `saved` is the backup that was taken of
    it, `set_aside` the file it became if it is damaged. `open_in` names programs that have the database open now.
    `writes` counts the writes that are taken back row by row; with 0 the database becomes what a full copy is.
    """

    applied: bool = False
    backup: Sentence = ""
    created_at: Instant = ""
    tables: Annotated[list[TableDiff], MANY] = []
    rows: Annotated[list[RowDiff], MANY] = []
    listed_all: bool = True
    damage: Text = ""
    saved: Sentence | None = None
    set_aside: Sentence | None = None
    open_in: Annotated[list[Sentence], MANY] = []
    seconds: float = 0.0
    job_id: Line = ""
    writes: Whole = 0


class RecoverySource(StrEnum):
    """Source of a rebuilt head: the object store, this node's mirror, or its live database."""

    STORE = "store"
    MIRROR = "mirror"
    DATABASE = "database"


class RecoverRequest(Wire, frozen=True, kw_only=True):
    """Make both stores agree again after one of them, or both, lost data.

    `preview` reports what is lost and what would be committed instead, and changes nothing.
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
    lost: Text = ""
    rows: Whole = 0
    uploaded_bytes: Whole = 0
    seconds: float = 0.0
    job_id: Line = ""
