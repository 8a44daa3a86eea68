"""The plugin's folder below Claude Code's `skills/`: written file by file, removed without a trace.

A running session may read any file at any moment, and the command may be killed at any step. So each file is replaced
whole, `plugin.json`, which makes the folder a plugin, is written last and removed first, and every step can be
repeated.
"""

import json
import shlex
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import hooks
from membridge.errors import ConflictError
from membridge.system import files

#: The plugin as it is shipped.
SHIPPED = Path(hooks.__file__).parent / "claude-code"
#: Below the plugin's folder: what makes it a plugin.
MANIFEST = Path(".claude-plugin") / "plugin.json"
#: Files that are written for this machine beside those that are shipped.
MADE_HERE = PATHS_SH, PATHS_JSON = Path("paths.sh"), Path("paths.json")
#: The module, and its line that is written for this machine: a file of its own would cost each session 7 ms.
MODULE, NO_PATHS = Path("hooks") / "register.js", b"\nconst paths = null\n"
WRITTEN = "Written by `membridge install hooks`."


@dataclass(frozen=True, slots=True)
class Reach:
    """What the hooks must know of this machine: where they leave events, and where they ask the daemon."""

    spool: Path
    run: Path
    wait_seconds: float
    project: str = ""

    def files(self) -> dict[Path, bytes]:
        """Return the files that tell it to the hooks: for sh, and for any other program."""
        values: dict[str, str | float] = {
            "spool": str(self.spool),
            "run": str(self.run),
            "wait_seconds": self.wait_seconds,
            "project": self.project,
        }
        shell = "".join(f"{name}={shlex.quote(str(value))}\n" for name, value in values.items())
        return {
            PATHS_SH: f"# {WRITTEN}\n{shell}".encode(errors="surrogateescape"),
            PATHS_JSON: f"{json.dumps(values, indent=2)}\n".encode(),
        }

    def line(self) -> bytes:
        """Return the line that tells it to the module."""
        values = {"run": str(self.run), "waitSeconds": self.wait_seconds, "project": self.project}
        return f"\nconst paths = {json.dumps(values)}\n".encode()


def content(source: Path, reach: Reach) -> dict[Path, bytes]:
    """Return the files of the plugin for this machine. Blocking."""
    found = shipped(source)
    return {**found, **reach.files(), MODULE: found[MODULE].replace(NO_PATHS, reach.line())}


def shipped(source: Path) -> dict[Path, bytes]:
    """Return the files of the plugin as this installation of Membridge brings them. Blocking."""
    with files.translated(source):
        return {
            path.relative_to(source): path.read_bytes()
            for path in sorted(source.rglob("*"))
            if path.is_file() and "__pycache__" not in path.parts
        }


def refuse_foreign(folder: Path) -> None:
    """Raise ConflictError when something that is not this plugin is at its place. Blocking."""
    with files.translated(folder):
        if is_ours(folder) or not (folder.exists() or folder.is_symlink()):
            return
    raise ConflictError(
        f"{folder} was left alone: it is not Membridge's plugin",
        remedy=f"move it away with `mv {shlex.quote(str(folder))} ~/`, and run the command again",
    )


def write(folder: Path, content: Mapping[Path, bytes]) -> None:
    """Give the plugin's files this content; files that have it stay untouched. Blocking."""
    # An interrupted installation is told from a foreign folder by the first file.
    for path in sorted(content, key=lambda path: (path == MANIFEST, path != PATHS_SH, path)):
        file = folder / path
        with files.translated(file):
            same = file.is_file() and file.read_bytes() == content[path]
        if not same:
            files.save(file, content[path])


def remove(folder: Path, names: Collection[Path]) -> list[Path]:
    """Remove the plugin's files, and its folders when they are empty; return what is left in them. Blocking."""
    for path in sorted(names, key=lambda path: (path == PATHS_SH, path != MANIFEST, path)):
        file = folder / path
        with files.translated(file):
            file.unlink(missing_ok=True)
        files.discard_saved(file)
    with files.translated(folder):
        for inner in sorted({folder / parent for path in names for parent in path.parents}, reverse=True):
            files.remove_if_empty(inner)
        return sorted(path for path in folder.rglob("*") if not path.is_dir())


def is_ours(folder: Path) -> bool:
    """Return whether the folder is Membridge's plugin, complete or not. Blocking."""
    if folder.is_symlink() or not folder.is_dir():
        return False
    if (files.read_if_there(folder / PATHS_SH) or b"").startswith(f"# {WRITTEN}".encode()):
        return True
    # Killed at its first file, or before it.
    if {path.name for path in folder.iterdir()} <= {f"{PATHS_SH}.part"}:
        return True
    try:
        manifest: object = json.loads(files.read_if_there(folder / MANIFEST) or b"null")
    except ValueError:
        return False
    return isinstance(manifest, dict) and cast("dict[str, object]", manifest).get("name") == "membridge"
