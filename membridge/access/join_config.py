"""The settings file that `membridge join` and `membridge up --listen` write: how this machine reaches its memory.

It is written atomically and only its owner can read it. A person's own settings stay in `config.toml`, which takes
precedence.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from membridge.settings import ENROLLED
from membridge.system import files

Value = str | list[str]


@dataclass(frozen=True, slots=True)
class JoinConfig:
    """The file's content: settings by group, and further projects with their databases."""

    settings: Mapping[str, Mapping[str, Value]]
    projects: Sequence[tuple[str, Path]] = field(default_factory=tuple)


def save(config_dir: Path, config: JoinConfig) -> Path:
    """Write the file into `config_dir` and return its path. Raises DiskFullError and FileAccessError."""
    path = config_dir / ENROLLED
    files.save(path, render(config).encode())
    return path


HEADING = "# Written by Membridge; what you set in config.toml goes before it."


def render(config: JoinConfig, heading: str = HEADING) -> str:
    """Return the file's text as TOML; a JSON string or list of strings is one in TOML too."""
    lines = [heading]
    for group, fields in config.settings.items():
        lines += ["", f"[{group}]", *(f"{name} = {_quoted(value)}" for name, value in fields.items())]
    for name, database in config.projects:
        lines += ["", "[[projects]]", f"name = {_quoted(name)}", f"database = {_quoted(str(database))}"]
    return "\n".join([*lines, ""])


def _quoted(value: Value) -> str:
    # DEL is the one character that JSON allows bare and TOML does not.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
