"""What a hook of Membridge prints for Claude Code, under Claude Code's names."""

from schemas.fields import Line, Text
from schemas.wire import Wire


class SessionStartOutput(Wire, frozen=True, kw_only=True):
    """What is put first into the context of a session that starts."""

    hookEventName: Line = "SessionStart"  # noqa: N815 - Claude Code's name
    additionalContext: Text = ""  # noqa: N815 - as above


class HookOutput(Wire, frozen=True, kw_only=True):
    """What a hook answers."""

    hookSpecificOutput: SessionStartOutput = SessionStartOutput()  # noqa: N815 - Claude Code's name
