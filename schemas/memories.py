"""Single memories on the wire: observations, summaries and prompts, found by text and filter, and forgotten."""

from enum import StrEnum
from typing import Annotated

from msgspec import Meta

from schemas.fields import MANY, Instant, Line, Sentence, Text, Value, Whole
from schemas.identity import Seq
from schemas.snapshot import PushOutcome
from schemas.wire import Wire

#: A memory's name, the same on each machine: its kind, its time, and the start of its content's sha256.
Ref = Annotated[str, Meta(min_length=1, max_length=64)]
#: Memories that one request forgets or lists at most.
MOST = 10_000


class MemoryKind(StrEnum):
    """What a memory is: an observation, the summary of a session, or a prompt of the user."""

    OBSERVATION = "observation"
    SUMMARY = "summary"
    PROMPT = "prompt"


class MemoryFilter(Wire, frozen=True, kw_only=True):
    """Which memories: those with all words of `q`, of a kind, project or type, of a time, of a machine.

    `project` is claude-mem's, the folder that an agent worked in. `origin` is the device that wrote a memory; an empty
    one is the machine that answers.
    """

    q: Annotated[str, Meta(max_length=512)] = ""
    kind: MemoryKind | None = None
    project: Line | None = None
    type: Line | None = None
    origin: Line | None = None
    since: Instant | None = None
    until: Instant | None = None


class MemoryOrder(StrEnum):
    """Which memories are listed first."""

    NEWEST = "newest"
    OLDEST = "oldest"


class MemoriesRequest(MemoryFilter, frozen=True, kw_only=True):
    """The newest or oldest memories of a filter, after the end of an earlier page of the same order."""

    limit: Annotated[int, Meta(ge=1, le=200)] = 50
    after: Line | None = None
    order: MemoryOrder = MemoryOrder.NEWEST


class Memory(Wire, frozen=True, kw_only=True):
    """A memory in a list. `marks` are where the words stand in `snippet`: beginning and end of each, in characters."""

    ref: Ref
    kind: MemoryKind
    title: Text
    snippet: Text = ""
    marks: Annotated[list[Whole], MANY] = []
    project: Text = ""
    type: Text = ""
    created_at: Instant = ""
    origin: Text = ""


class MemoriesReply(Wire, frozen=True, kw_only=True):
    """Memories in the order of the request; `total` counts all of the filter, `next` begins the next page, if any."""

    memories: Annotated[list[Memory], MANY] = []
    total: Whole = 0
    next: Line | None = None


class MemoryRequest(Wire, frozen=True, kw_only=True):
    """Names a memory."""

    ref: Ref


class MemoryReply(Wire, frozen=True, kw_only=True):
    """A memory with its columns."""

    memory: Memory
    fields: Annotated[dict[Line, Value], MANY] = {}


class ForgetRequest(Wire, frozen=True, kw_only=True):
    """Forget memories on every machine: those named, or all of a filter; without `apply` only say which.

    A filter without any condition is refused.
    """

    refs: Annotated[list[Ref], Meta(max_length=MOST)] = []
    filter: MemoryFilter | None = None
    apply: bool = False


class ForgetReply(Wire, frozen=True, kw_only=True):
    """How many memories of each kind are forgotten, or would be, and the first hundred of them.

    To undo it, restore the snapshot `before_seq`; `backup` is this machine's own copy.
    """

    applied: bool = False
    counts: Annotated[dict[Line, Whole], MANY] = {}
    memories: Annotated[list[Memory], MANY] = []
    forgotten: Whole = 0
    outcome: PushOutcome | None = None
    seq: Seq | None = None
    before_seq: Seq = 0
    backup: Sentence | None = None
    seconds: float = 0.0
    job_id: Line = ""
