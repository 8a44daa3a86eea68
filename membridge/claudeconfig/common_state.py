"""The last state that this machine and the shared one had in common: the base of each merge. Blocking.

It is private as the files themselves are. One that is lost or damaged costs no file: the next merge then treats what
differs as changed on both sides.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from membridge.claudeconfig import shared_state
from membridge.claudeconfig.three_way import Leaf
from membridge.errors import MembridgeError
from membridge.system import clock, files
from schemas.claude_config import ConfigHead, ConfigState
from schemas.identity import NodeId, ProjectId

FILE = "common.zst"


@dataclass(frozen=True, slots=True)
class Common:
    """The common files, and the state that they were last compared with."""

    files: Mapping[str, Leaf] = field(default_factory=dict[str, Leaf])
    seq: int = 0
    lineage: str = ""


def load(folder: Path) -> Common:
    """Return the common state in `folder`, an empty one where there is none that can be read."""
    try:
        with files.translated(folder):
            body = (folder / FILE).read_bytes()
        state = shared_state.unpack(body, FILE)
    except MembridgeError:
        return Common()
    return Common({one.path: Leaf(one.body, one.executable) for one in state.files}, state.seq, state.lineage)


def packed(common: Mapping[str, Leaf], head: ConfigHead | None, *, project: ProjectId, node: NodeId) -> bytes:
    """Return a common state as bytes; `head` is what it was compared with."""
    return shared_state.pack(
        ConfigState(
            project=project,
            seq=head.seq if head else 0,
            nonce="",
            lineage=head.lineage if head else "",
            node=node,
            created_at=clock.stamp(),
            files=shared_state.as_files(common),
        )
    )


def save(folder: Path, body: bytes) -> None:
    """Write the common state; after a crash the old or the new one is there."""
    files.save(folder / FILE, body)
