"""Where merged rows come from, and what a merge did."""

from dataclasses import dataclass

from schemas.identity import NodeId


@dataclass(frozen=True, slots=True)
class Source:
    """The node that rows come from, and its claude-mem device id where it has one."""

    node: NodeId
    device_id: str | None = None

    @property
    def device(self) -> str:
        """The device named in the origin of rows that are native to the source; never empty, as empty means ours."""
        return self.device_id or f"membridge-{self.node}"


@dataclass(frozen=True, slots=True)
class MergeReport:
    """Rows written to the live database; `unsynced` rows are not, or not so, in the canonical memory."""

    inserted: int = 0
    updated: int = 0
    deleted: int = 0
    conflicts: int = 0
    quarantined: int = 0
    unsynced: int = 0
