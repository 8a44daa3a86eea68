"""The settings of Claude Code's hooks."""

# ruff: noqa: RUF009 - `setting` is `dataclasses.field` with the columns of the table

from dataclasses import dataclass
from enum import StrEnum

from membridge.settings.kinds import FLAG, number, one_of
from membridge.settings.table import setting


class HookContext(StrEnum):
    """What a session start brings into the session: nothing, one line, or titles too where there is no memory yet."""

    OFF = "off"
    LINE = "line"
    WHEN_EMPTY = "when-empty"


@dataclass(frozen=True, slots=True, kw_only=True)
class HookSettings:
    """Claude Code's hooks, which `membridge install hooks` installs."""

    wait_seconds: float = setting(
        number(above=0, most=9),
        default=5.0,
        env="MEMBRIDGE_HOOKS_WAIT_SECONDS",
        unit="seconds",
        meaning="A session start waits this long at most for newer memory; `membridge install hooks` tells the hooks.",
    )
    context: HookContext = setting(
        one_of(HookContext),
        default=HookContext.LINE,
        env="MEMBRIDGE_HOOKS_CONTEXT",
        off="off",
        meaning="What a session start is told: `line` how fresh the memory is; `when-empty` also the newest titles "
        "while claude-mem's worker, which brings them, does not answer yet.",
    )
    include_prompts: bool = setting(
        FLAG,
        default=False,
        env="MEMBRIDGE_HOOKS_INCLUDE_PROMPTS",
        off="false",
        meaning="Session events carry the text of prompts to everyone who reads the project's events.",
    )
