"""The shared Claude Code configuration of a project: one immutable object for each state.

The head in KV names the newest state. A reader checks each path again: it never trusts
the machine that wrote it.
"""

from typing import Annotated

from msgspec import Meta

from schemas.buckets import Bucket
from schemas.fields import Instant, Line, Number, Sentence
from schemas.identity import Seq, Sha256, WireNodeId, WireProjectId
from schemas.wire import Wire

#: Version of a state; a reader refuses a newer one.
CONFIG_FORMAT = 1
#: Bytes of the largest file that travels, most files of a state, and their bytes in all.
MOST_FILE, MOST_FILES, MOST_STATE = 1 << 20, 4_000, 8 << 20


class ConfigFile(Wire, frozen=True, kw_only=True):
    """A file by its path below the configuration folder, with `/` between its parts.

    `settings.json` holds the portable keys alone, `plugins.json` the wanted plugins and marketplaces. Paths below
    `memory/` begin with the repository that an auto memory belongs to.
    """

    path: Sentence
    executable: bool = False
    body: Annotated[bytes, Meta(max_length=MOST_FILE)]


class ConfigState(Wire, frozen=True, kw_only=True):
    """All portable files as of one push. `parent` is the nonce of the state that it was made from.

    `lineage` is the same in all states that follow from one: a server that lost its data begins another.
    """

    format: Number = CONFIG_FORMAT
    project: WireProjectId
    seq: Seq
    nonce: Line
    parent: Line = ""
    lineage: Line = ""
    node: WireNodeId
    created_at: Instant
    files: Annotated[list[ConfigFile], Meta(max_length=MOST_FILES)] = []


class ConfigHead(Wire, frozen=True, kw_only=True):
    """The newest shared Claude Code configuration of a project; seq and nonce name its object.

    `lineage` is the same in all states that follow from one.
    """

    seq: Seq
    nonce: Line
    lineage: Line = ""
    sha256: Sha256
    node: WireNodeId
    created_at: Instant


#: Declared here and not beside the other buckets of nodes: a daemon neither uses nor loads it.
CLAUDE_CONFIG = Bucket("claude_config", ConfigHead, ttl=None, history=8, max_bytes=4 << 20)
