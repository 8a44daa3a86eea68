"""What Claude Code's hooks ask of the daemon of their machine, over its unix socket."""

from typing import Annotated

from msgspec import Meta

from schemas.fields import Sentence, Text
from schemas.wire import Wire

#: A name that another program gives: any text.
_Name = Annotated[str, Meta(max_length=1_024)]


class SessionStartRequest(Wire, frozen=True, kw_only=True):
    """A session starts in the folder `cwd`; `project` is the name of its memory, if the hook knows it."""

    session_id: _Name = ""
    cwd: Sentence = ""
    source: _Name = ""
    project: _Name | None = None


class SessionStartReply(Wire, frozen=True, kw_only=True):
    """What to put first into the session's context: how fresh its memory is; None for nothing."""

    context: Text | None = None
