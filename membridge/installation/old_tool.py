"""What claude-mem-minio, the tool that came before, and its FastAPI server and agent left on a machine.

Everything is only read; hooks and units are named for the person who removes them.
"""

import json
import re
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from membridge.claudecode.place import is_old

FOLDER = ".claude-mem-minio"
#: Folders in which its checkout usually is, and files that only it has.
CHECKOUTS = ("membridge", "projects/mem", "projects/membridge")
MARKS = ("sqlite_minio_sync.py", ".env.agent", ".env.server")
UNITS = ("membridge-agent", "membridge-server")
PINNED = re.compile(r"(?m)^\s*(?:export\s+)?CLAUDE_CANONICAL_PROJECT_ID=[\"']?([0-9a-f]{16})\b")
MOST_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Leftover:
    """One thing of the old tool: its kind, where it is, and what there is to say of it."""

    kind: str
    path: Path
    detail: str


def detect(home: Path, environ: Mapping[str, str], root: Path = Path("/")) -> list[Leftover]:
    """Return what the old tool left for the user of `home`. Blocking; raises nothing for what cannot be read."""
    with_gaps = [*_files(home), *_hooks(home), *_checkouts(home, environ), *_services(root), *_projects(home)]
    return list(with_gaps)


def pinned_id(home: Path) -> str | None:
    """Return the canonical id that its settings pin, None if they pin none."""
    found = PINNED.search(_text(home / FOLDER / "config.env"))
    return found[1] if found else None


def projects(home: Path) -> list[str]:
    """Return the names of projects that its agent knew."""
    file = home / ".membridge" / "agent_projects.json"
    try:
        document: object = json.loads(_text(file) or "null")
    except ValueError:
        return []
    return sorted(set(_names(document)))


def _names(document: object) -> Generator[str]:
    """Find project names in a list of names or of objects, or in an object of either by id."""
    match document:
        case str():
            yield document
        case list():
            for one in cast("list[object]", document):
                yield from _names(one)
        case dict():
            named = cast("dict[str, object]", document)
            name = next(
                (named[key] for key in ("project_id", "project", "name") if isinstance(named.get(key), str)), None
            )
            if isinstance(name, str):
                yield name
            else:
                for one in named.values():
                    yield from _names(one)
        case _:
            return


def _files(home: Path) -> Generator[Leftover]:
    config = home / FOLDER / "config.env"
    if config.is_file():
        link = f", a link to {config.resolve()}" if config.is_symlink() else ""
        yield Leftover("settings", config, f"its settings{link}; read as they are, never changed")
    scripts = home / FOLDER / "bin"
    if scripts.is_dir():
        names = ", ".join(sorted(file.name for file in scripts.iterdir())) or "nothing"
        yield Leftover("scripts", scripts, names)
    backups = home / ".claude-mem-backups"
    if backups.is_dir():
        yield Leftover("backups", backups, f"{sum(1 for _ in backups.iterdir())} copies of the database")


def _hooks(home: Path) -> Generator[Leftover]:
    file = home / ".claude" / "settings.json"
    try:
        document: object = json.loads(_text(file) or "null")
    except ValueError:
        return
    hooks: object = cast("dict[str, object]", document).get("hooks") if isinstance(document, dict) else None
    if not isinstance(hooks, dict):
        return
    for event, entries in cast("dict[str, object]", hooks).items():
        if is_old(json.dumps(entries)):
            yield Leftover("hook", file, f"{event} runs a script of the old tool")


def _checkouts(home: Path, environ: Mapping[str, str]) -> Generator[Leftover]:
    places = [Path(environ["MEMBRIDGE_DIR"])] if environ.get("MEMBRIDGE_DIR") else []
    for place in dict.fromkeys([*places, *(home / name for name in CHECKOUTS)]):
        if marks := [name for name in MARKS if (place / name).is_file()]:
            yield Leftover("checkout", place, f"its program, with {', '.join(marks)}")


def _services(root: Path) -> Generator[Leftover]:
    for name in UNITS:
        if (unit := root / "etc" / "systemd" / "system" / f"{name}.service").is_file():
            yield Leftover("service", unit, f"sudo systemctl disable --now {name}")
        if (unit := root / "etc" / "init.d" / name).is_file():
            yield Leftover("service", unit, f"rc-service {name} stop && rc-update del {name}")


def _projects(home: Path) -> Generator[Leftover]:
    if names := projects(home):
        yield Leftover("projects", home / ".membridge" / "agent_projects.json", ", ".join(names))


def _text(file: Path) -> str:
    """Return the text of a file of reasonable size, nothing for one that is missing or cannot be read."""
    try:
        if file.stat().st_size > MOST_BYTES:
            return ""
        return file.read_text("utf-8", "replace")
    except OSError:
        return ""
