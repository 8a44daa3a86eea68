"""Where the hooks go on this machine, the hooks that settings.json gets there, and the receipt of an installation."""

import hashlib
import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import msgspec

from membridge.claudecode.json_file import Document
from membridge.system import files

#: Hooks of settings.json, for a Claude Code that loads no plugin folders: event, script, seconds.
HOOKS = (
    ("SessionStart", "session_start.sh", 60),
    ("UserPromptSubmit", "event.sh", 10),
    ("Stop", "event.sh", 10),
    ("SessionEnd", "event.sh", 10),
)
#: Commands of the tool that Membridge replaces: by name, or by the folder of its scripts.
_OLD = re.compile(r"claude-mem-hook-(?:pull|push)\b|\.claude-mem-minio[/\\]+bin[/\\]")


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """What an installation made, and what it changed in settings.json."""

    #: Relative to the plugin's folder.
    files: tuple[str, ...] = ()
    #: Folders that were not there, absolute, an outer one before what is in it.
    folders: tuple[str, ...] = ()
    #: Whether settings.json got hooks, lost old ones, was not there before.
    added: bool = False
    replaced: bool = False
    created: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """Claude Code's folder, and the state folder, which has the receipt."""

    claude: Path
    state: Path

    @classmethod
    def of_user(cls, state: Path) -> Self:
        """Return the place of the user who runs this: Claude Code's folder as Claude Code finds it."""
        folder = os.environ.get("CLAUDE_CONFIG_DIR")
        return cls(Path(folder).absolute() if folder else Path.home() / ".claude", state)

    @property
    def plugin(self) -> Path:
        """The plugin's folder; Claude Code 2.1.157 and later loads it."""
        return self.claude / "skills" / "membridge"

    @property
    def settings(self) -> Path:
        """The user's settings of Claude Code."""
        return self.claude / "settings.json"

    @property
    def receipt(self) -> Path:
        """The receipt of an installation in this place."""
        return self.state / "hooks" / f"{hashlib.sha256(bytes(self.claude)).hexdigest()[:16]}.json"

    @property
    def backup(self) -> Path:
        """The settings as they were before they were changed."""
        return self.receipt.with_suffix(".settings.json")

    def hooks(self) -> list[tuple[str, Document]]:
        """Return the hooks of settings.json with their events."""
        return [
            (event, {"type": "command", "command": self._command(script, event), "timeout": seconds})
            for event, script, seconds in HOOKS
        ]

    def is_ours(self, command: str) -> bool:
        """Return whether the command of a hook is one of `hooks`."""
        return any(hook["command"] == command for _, hook in self.hooks())

    def load(self) -> Receipt:
        """Return the receipt; an empty one without a file, or for one that was damaged. Blocking."""
        try:
            return msgspec.json.decode(files.read_if_there(self.receipt) or b"{}", type=Receipt)
        except msgspec.MsgspecError:
            return Receipt()

    def save(self, receipt: Receipt) -> None:
        """Keep the receipt. Blocking."""
        files.save(self.receipt, msgspec.json.encode(receipt))

    def _command(self, script: str, event: str) -> str:
        return f"/bin/sh {shlex.quote(str(self.plugin / script))}" + (f" {event}" if script == "event.sh" else "")


def is_old(command: str) -> bool:
    """Return whether the command of a hook, or one in the JSON of several, belongs to the tool that we replace."""
    return _OLD.search(command) is not None
