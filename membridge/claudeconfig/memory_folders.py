"""Where the auto memories of this machine are, and which repository each belongs to. Blocking.

Claude Code names a project's folder after the path of the project, and the name does not lead back. So paths that it
knows are tried: those in its list of projects, in its sessions, and the folder of this command.
"""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from membridge.claudeconfig import memory_keys
from membridge.claudeconfig.collect import Place, Refusal
from membridge.errors import InvalidRequestError
from membridge.system import files

#: Bytes of a session that are searched for its folder, of the list of projects, and projects that are looked at.
_HEAD, _LIST, _MOST = 64 << 10, 32 << 20, 2_000
#: Seconds for one answer of git.
_GIT = 10.0
_CWD = re.compile(rb'"cwd":("(?:[^"\\]|\\.)*")')
ALIASES = "aliases.json"


@dataclass(slots=True)
class Memories:
    """This machine's auto memories by the path under which they travel, and those that do not."""

    folders: dict[str, Path] = field(default_factory=dict[str, Path])
    refused: list[Refusal] = field(default_factory=list[Refusal])


def find(place: Place, aliases: Mapping[str, Path], here: Path) -> Memories:
    """Return the auto memories: of each repository the folder that changed last, and of each alias its own."""
    found = Memories()
    candidates: dict[str, list[Path]] = {}
    projects = place.config / "projects"
    for path in _known(place, [here, *aliases.values()]):
        name, whole = memory_keys.folder_name(str(path))
        # A clone without a session has no folder yet: it is made where its name is known.
        folders = [projects / name] if whole else sorted(projects.glob(f"{name}*"))[:1]
        key = _key(path, aliases)
        if key is not None and not folders:
            found.refused.append(Refusal(key, f"{path} has no folder of Claude Code yet: start `claude` there once"))
        for folder in folders:
            shown = f"projects/{folder.name}/memory"
            if _is_link(folder):
                found.refused.append(Refusal(shown, "it is below a symbolic link"))
            elif key is not None:
                candidates.setdefault(key, []).append(folder / "memory")
            elif (folder / "memory").is_dir():
                reason = f"{path} has no git remote that other machines know: `--alias NAME={path}` gives it a name"
                found.refused.append(Refusal(shown, reason))
    for key, folders in candidates.items():
        best, *others = sorted(dict.fromkeys(folders), key=_changed, reverse=True)
        found.folders[key] = best
        found.refused += [
            Refusal(f"projects/{one.parent.name}/memory", f"{best.parent.name} is of the same repository, and newer")
            for one in others
            if one.is_dir()
        ]
    return found


def load_aliases(state: Path) -> dict[str, Path]:
    """Return the aliases that were given on this machine."""
    try:
        raw = json.loads((state / ALIASES).read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return {name: Path(path) for name, path in cast("dict[str, str]", raw).items()}


def save_aliases(state: Path, given: Iterable[str]) -> dict[str, Path]:
    """Remember aliases, each as `NAME=FOLDER`, and return all. Raises InvalidRequestError for one that is not."""
    aliases = load_aliases(state)
    for one in given:
        name, _, folder = one.partition("=")
        path = Path(folder).expanduser()
        if memory_keys.of_alias(name) is None or not folder or not path.is_dir():
            raise InvalidRequestError(
                f"{one!r} is not NAME=FOLDER with a name of A-Z a-z 0-9 _ - and a folder that exists",
                remedy="write it as --alias notes=~/notes",
                field="alias",
            )
        aliases[name] = path.resolve()
    files.save(state / ALIASES, json.dumps({name: str(path) for name, path in aliases.items()}).encode())
    return aliases


def _known(place: Place, given: Iterable[Path]) -> list[Path]:
    """Return the projects that this machine knows, each once, those that were given first."""
    paths = [*given, *map(Path, _listed(place)), *map(Path, _of_sessions(place))]
    unique = dict.fromkeys(path for path in paths if path.is_absolute())
    return [path for path in list(unique)[:_MOST] if path.is_dir()]


def _listed(place: Place) -> list[str]:
    """Return the folders in Claude Code's list of projects. Nothing else of that file is used: it has secrets."""
    for file in (place.config / ".claude.json", place.home / ".claude.json"):
        try:
            if file.stat().st_size > _LIST:
                continue
            known = json.loads(file.read_bytes())
        except (OSError, ValueError, RecursionError):
            continue
        projects = cast("dict[str, object]", known).get("projects") if isinstance(known, dict) else None
        if isinstance(projects, dict):
            return list(cast("dict[str, object]", projects))
    return []


def _of_sessions(place: Place) -> Iterator[str]:
    """Yield the folder in which the newest session of each project began."""
    for folder in sorted((place.config / "projects").glob("*"))[:_MOST]:
        if not (folder / "memory").is_dir():
            continue
        for session in sorted(folder.glob("*.jsonl"), key=_changed, reverse=True)[:1]:
            with files.translated(session), session.open("rb") as file:
                found = _CWD.search(file.read(_HEAD))
            if found is not None:
                try:
                    yield str(json.loads(found[1]))
                except ValueError:
                    continue


def _key(path: Path, aliases: Mapping[str, Path]) -> str | None:
    alias = next((name for name, folder in aliases.items() if folder == path), None)
    if alias is not None:
        return memory_keys.of_alias(alias)
    names = _git(path, "remote").split()
    name = "origin" if "origin" in names else next(iter(names), None)
    return memory_keys.of_remote(_git(path, "remote", "get-url", name)) if name else None


def _git(path: Path, *arguments: str) -> str:
    """Return what git answers in a folder, nothing where there is no git or no repository."""
    program = shutil.which("git")
    if program is None:
        return ""
    environment = {"PATH": os.environ.get("PATH", os.defpath), "HOME": os.environ.get("HOME", "/"), "LC_ALL": "C"}
    try:
        done = subprocess.run(  # noqa: S603 - no shell, and the arguments are ours
            [program, "-C", str(path), *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_GIT,
            check=False,
            env={**environment, "GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="replace").strip() if done.returncode == 0 else ""


def _is_link(folder: Path) -> bool:
    return folder.is_symlink() or folder.parent.is_symlink() or (folder / "memory").is_symlink()


def _changed(path: Path) -> float:
    """Return when a session, or the index of a memory, changed last."""
    for one in (path / "MEMORY.md", path):
        try:
            return one.stat().st_mtime
        except OSError:
            continue
    return 0.0
