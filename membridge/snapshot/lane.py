"""A lane: the replica of a project, joined with its live database.

A record of collaborators without behaviour; the use cases are in `push`, `pull` and `proposals`.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from membridge.commits.replica import Replica
from membridge.merge.conflicts import Journal
from membridge.merge.report import Source
from membridge.merge.row_index import RowIndex
from membridge.snapshot.backup_retention import BackupPolicy
from schemas.events import Event
from schemas.identity import NodeId


@dataclass(frozen=True, slots=True)
class LanePolicy:
    """A live database's bounds. A commit that would lose more than `shrink_percent` of the rows is refused."""

    shrink_percent: float = 20.0
    publish_legacy: bool = False
    backups: BackupPolicy = field(default_factory=BackupPolicy)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane(Replica):
    """One project on one node: its replica and `database`, the live database that claude-mem writes.

    `index` tells which of its rows may differ from the mirror.
    """

    database: Path
    journal: Journal
    index: RowIndex
    announce: Callable[[Event], Awaitable[None]]
    policy: LanePolicy = field(default_factory=LanePolicy)

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
