"""What `membridge claude-config` prints, also as JSON."""

import msgspec

from schemas.identity import Seq
from schemas.wire import Wire


class ConfigChange(Wire, frozen=True, kw_only=True):
    """A file, or a key of one: `send`, `take`, `gone_here`, `gone_there` or `conflict`. A program runs code."""

    path: str
    key: str = ""
    action: str
    program: bool = False


class ConfigStays(Wire, frozen=True, kw_only=True):
    """What does not travel, and why. `fault`: somebody has to do something if it should; else it is a rule."""

    path: str
    key: str = ""
    line: int | None = None
    reason: str
    fault: bool = True


class ConfigNote(Wire, frozen=True, kw_only=True):
    """A line of a file that travels, and what is odd about it."""

    path: str
    line: int
    text: str


class ConfigReply(Wire, frozen=True, kw_only=True):
    """What a push, a pull or a diff found and did; `seq` is the newest shared state, 0 for none, `node` who made it."""

    project: str
    seq: Seq = 0
    node: str = ""
    changes: list[ConfigChange] = msgspec.field(default_factory=list[ConfigChange])
    stays: list[ConfigStays] = msgspec.field(default_factory=list[ConfigStays])
    notes: list[ConfigNote] = msgspec.field(default_factory=list[ConfigNote])
    #: Files with the other version of a conflict.
    beside: list[str] = msgspec.field(default_factory=list[str])
    #: Files that a pull left alone, and why.
    left: list[ConfigStays] = msgspec.field(default_factory=list[ConfigStays])
    #: Commands that bring the plugins here, and whether they ran.
    plugins: list[str] = msgspec.field(default_factory=list[str])
    ran: bool = False


class UndoReply(Wire, frozen=True, kw_only=True):
    """What `pull --undo` put back, and what it left because it was changed since."""

    pulled_at: str
    restored: list[str] = msgspec.field(default_factory=list[str])
    left: list[ConfigStays] = msgspec.field(default_factory=list[ConfigStays])
