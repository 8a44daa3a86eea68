"""What a push or pull of one project works with: one frozen record, made by the composition root.

A record of collaborators, no behaviour: the use-cases are in `push`, `pull` and `proposals`.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from membridge.bus.kv import Kv
from membridge.merge.conflicts import Journal
from membridge.merge.report import Source
from membridge.objectstore.protocol import ObjectStore
from membridge.snapshot.chain import ChainPolicy
from membridge.snapshot.mirror import Mirror
from membridge.snapshot.retention import BackupPolicy, SnapshotPolicy
from schemas.events import Event
from schemas.identity import NodeId, ProjectId
from schemas.snapshot import Head


@dataclass(frozen=True, slots=True)
class LanePolicy:
    """A project's bounds. A commit that would lose more than `shrink_percent` of the rows is refused."""

    shrink_percent: float = 20.0
    publish_legacy: bool = False
    chain: ChainPolicy = field(default_factory=ChainPolicy)
    backups: BackupPolicy = field(default_factory=BackupPolicy)
    snapshots: SnapshotPolicy = field(default_factory=SnapshotPolicy)


@dataclass(frozen=True, slots=True)
class Lane:
    """One project on one node. `folder` is the project's own state folder, `database` the live database."""

    project: ProjectId
    name: str
    node: NodeId
    database: Path
    folder: Path
    store: ObjectStore
    heads: Kv[Head]
    journal: Journal
    announce: Callable[[Event], Awaitable[None]]
    policy: LanePolicy = field(default_factory=LanePolicy)

    @property
    def mirror(self) -> Mirror:
        """The project's mirror."""
        return Mirror(self.folder / "mirror")

    @property
    def backups(self) -> Path:
        """The folder of the project's backups."""
        return self.folder / "backups"

    @property
    def marks(self) -> Path:
        """The note of where the live database stood after the last push or pull."""
        return self.folder / "high-water.json"

    def source(self, node: NodeId, device_id: str | None) -> Source:
        """Return where rows come from that `node` wrote."""
        return Source(node=node, device_id=device_id)
