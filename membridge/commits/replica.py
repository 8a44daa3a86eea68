"""A project's committed states as one process sees them: where they are stored, and the folder of its own copy.

A record of collaborators, no behaviour. A process without a live database works with a replica alone; a node joins it
with its live database in a `Lane`.
"""

from dataclasses import dataclass, field
from pathlib import Path

from membridge.bus.kv import Kv
from membridge.commits.chain import ChainPolicy
from membridge.commits.mirror import Mirror
from membridge.commits.retention import SnapshotPolicy
from membridge.objectstore.protocol import ObjectStore
from schemas.identity import NodeId, ProjectId
from schemas.snapshot import Head


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """One project in one process. `folder` is the project's own state folder, `node` who commits and tags here."""

    project: ProjectId
    name: str
    node: NodeId
    folder: Path
    store: ObjectStore
    heads: Kv[Head]
    chain: ChainPolicy = field(default_factory=ChainPolicy)
    retention: SnapshotPolicy = field(default_factory=SnapshotPolicy)

    @property
    def mirror(self) -> Mirror:
        """The project's mirror."""
        return Mirror(self.folder / "mirror")
