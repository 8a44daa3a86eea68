"""Read what this machine would send: the files that may travel, in portable form, and why others may not.

Blocking. Follows no symbolic link and reads no file beyond its bound.
"""

import os
import stat
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from membridge.claudecode import json_file
from membridge.claudeconfig import documents, home_paths, rules, secret_scan, settings_file
from membridge.claudeconfig.home_paths import Homes
from membridge.claudeconfig.rules import Requested
from membridge.claudeconfig.settings_file import Json
from membridge.claudeconfig.three_way import Leaf
from membridge.errors import FileAccessError, MembridgeError
from membridge.system import files
from schemas.claude_config import MOST_FILE, MOST_FILES
from schemas.wire import storable

#: Most files and folders that are looked at in all.
MOST_SEEN = 50_000


@dataclass(frozen=True, slots=True)
class Place:
    """A machine's configuration folder, without links, its home, and where we keep what we know of it."""

    config: Path
    home: Path
    state: Path

    @property
    def homes(self) -> Homes:
        """The folders whose names are rewritten."""
        return Homes(self.home.as_posix(), self.config.as_posix())


@dataclass(frozen=True, slots=True)
class Refusal:
    """A file, or a key of one, that stays here although its folder travels, and why. Lines count from 1."""

    path: str
    reason: str
    line: int | None = None
    key: str = ""
    #: Not a fault: a rule keeps it here, and no one has to do anything.
    expected: bool = False


@dataclass(frozen=True, slots=True)
class Note:
    """A line of a file that travels, and what was done to it or is odd about it."""

    path: str
    line: int
    text: str


@dataclass(slots=True)
class Collected:
    """What this machine has: portable files by path, where they are and their bytes, what stays, the whole settings."""

    files: dict[str, Leaf] = field(default_factory=dict[str, Leaf])
    places: dict[str, Path] = field(default_factory=dict[str, Path])
    raw: dict[str, bytes] = field(default_factory=dict[str, bytes])
    refused: list[Refusal] = field(default_factory=list[Refusal])
    notes: list[Note] = field(default_factory=list[Note])
    settings: Json = field(default_factory=dict[str, object])
    #: Keys of the settings that theirs may not replace.
    held: set[str] = field(default_factory=set[str])
    settings_body: bytes | None = None


def collect(place: Place, requested: Requested, folders: Mapping[str, Path]) -> Collected:
    """Return what of the configuration folder travels. `folders` has more of them by the path that they have there.

    Errors: FileAccessError, InvalidRequestError for settings that cannot be read.
    """
    found = Collected()
    if not place.config.is_dir():
        raise FileAccessError(
            f"{place.config} does not exist: Claude Code has no configuration here",
            remedy="start `claude` on this machine once, then run it again",
        )
    seen: dict[str, Path] = {}
    for path, file in _walk(place.config, requested, folders, found):
        if path in seen:
            found.refused.append(Refusal(path, "two files have this name in the normal form NFC"))
        seen[path] = file
    collisions = rules.colliding(seen)
    for path, file in seen.items():
        found.places[path] = file
        if path in collisions:
            other = collisions[path]
            found.refused.append(Refusal(path, f"a system without upper and lower case takes it for {other}"))
        else:
            _take(found, path, file, place.homes)
    _take_settings(found, place)
    return found


def screen(found: Collected, shared: Mapping[str, Leaf], allowed: frozenset[str]) -> None:
    """Refuse what looks like a secret, unless it is shared already or was allowed by name."""
    for path, leaf in list(found.files.items()):
        if path in allowed or shared.get(path) == leaf:
            continue
        if path in {rules.SETTINGS, rules.PLUGINS}:
            _screen_settings(found, path, leaf)
            continue
        hit = secret_scan.scan(leaf.body.decode())
        if hit is not None:
            del found.files[path]
            found.refused.append(Refusal(path, f"it seems to hold {hit.kind}", hit.line))


def _screen_settings(found: Collected, path: str, leaf: Leaf) -> None:
    value = settings_file.read(leaf.body)
    for key in list(value):
        hit = secret_scan.scan(documents.written({key: value[key]}).decode())
        if hit is None:
            continue
        line = _line_of(found.settings_body or b"", key)
        found.refused.append(Refusal(path, f"it seems to hold {hit.kind}", line, key))
    kept = {key: one for key, one in value.items() if key not in {one.key for one in found.refused if one.path == path}}
    found.files[path] = Leaf(documents.written(kept))


def _line_of(body: bytes, key: str) -> int | None:
    """Return the line of settings.json where the secret of a key is, else that of the key."""
    lines = body.decode(errors="replace").splitlines()
    start = next((number for number, line in enumerate(lines) if f'"{key}"' in line), None)
    if start is None:
        return None
    return next((number + 1 for number in range(start, len(lines)) if secret_scan.kind_of(lines[number])), start + 1)


def _walk(
    config: Path, requested: Requested, folders: Mapping[str, Path], found: Collected
) -> Iterator[tuple[str, Path]]:
    """Yield each file of the folders that travel, by its portable path."""
    with files.translated(config):
        tops = sorted(os.scandir(config), key=lambda entry: entry.name)
    budget = [MOST_SEEN]
    for entry in tops:
        name = _shown(entry.name)
        if name in {rules.SETTINGS, rules.MEMORY, rules.PLUGINS}:
            continue
        if name in rules.FILES or name in rules.FOLDERS or (name == rules.PLANS and requested.plans):
            yield from _below(entry, name, found, budget)
        else:
            asked = rules.why_not(f"{name}/a.md", requested) or ""
            reason = asked if name == rules.PLANS else "it is not on the list of what travels"
            found.refused.append(Refusal(name, reason, expected=True))
    for path, folder in folders.items():
        with files.translated(folder):
            inner = sorted(os.scandir(folder), key=lambda entry: entry.name) if folder.is_dir() else []
        for entry in inner:
            yield from _below(entry, f"{path}/{_shown(entry.name)}", found, budget)


def _below(entry: "os.DirEntry[str]", path: str, found: Collected, budget: list[int]) -> Iterator[tuple[str, Path]]:
    budget[0] -= 1
    if budget[0] < 0:
        raise FileAccessError(
            f"more than {MOST_SEEN:,} files are below the configuration folder",
            remedy=f"move some away, such as {path}",
        )
    if entry.is_symlink():
        found.refused.append(Refusal(path, "it is a symbolic link"))
    elif left := rules.why_left(entry.name):
        found.refused.append(Refusal(path, left, expected=True))
    elif entry.is_dir(follow_symlinks=False):
        if (Path(entry.path) / ".claude-plugin").is_dir():
            found.refused.append(Refusal(path, "a tool put this plugin there", expected=True))
            return
        with files.translated(Path(entry.path)):
            inner = sorted(os.scandir(entry.path), key=lambda one: one.name)
        for one in inner:
            yield from _below(one, f"{path}/{_shown(one.name)}", found, budget)
    elif reason := rules.why_not(path):
        found.refused.append(Refusal(path, reason))
    else:
        yield path, Path(entry.path)


def _take(found: Collected, path: str, file: Path, homes: Homes) -> None:
    """Read one file in its portable form, or refuse it."""
    if len(found.files) >= MOST_FILES - 2:
        found.refused.append(Refusal(path, f"more than {MOST_FILES:,} files"))
        return
    try:
        body, executable = read_file(file)
        found.raw[path], text = body, body.decode()
    except UnicodeDecodeError:
        found.refused.append(Refusal(path, "it is not UTF-8 text, so it cannot be searched for secrets"))
        return
    except MembridgeError as error:
        found.refused.append(Refusal(path, error.message.removeprefix(f"{file}: ")))
        return
    made = _portable(path, text, homes)
    if isinstance(made, Refusal):
        found.refused.append(made)
        return
    found.notes += [Note(path, line, "its home folder travels as $HOME") for line in made.rewritten]
    found.notes += [Note(path, line, "it names a folder of another machine") for line in made.foreign]
    if rules.is_json(path):
        try:
            json_file.parsed(body, path)
        except MembridgeError as error:
            found.refused.append(Refusal(path, error.message.removeprefix(f"{path} ")))
            return
    found.files[path] = Leaf(made.text.encode(), executable)


def _portable(path: str, text: str, homes: Homes) -> home_paths.Portable | Refusal:
    line = home_paths.first_own(text, homes)
    if line is not None and rules.is_shell(path, text):
        quoted = home_paths.quoted(text, homes)
        if quoted is not None:
            return Refusal(path, "it names the home folder in single quotes, where no shell replaces $HOME", quoted)
    elif line is not None and not path.endswith((".md", ".txt")):
        return Refusal(path, "it names this machine's home folder, and nothing replaces $HOME in it", line)
    return home_paths.portable(text, homes)


def _take_settings(found: Collected, place: Place) -> None:
    file = place.config / rules.SETTINGS
    found.places[rules.SETTINGS] = file
    if file.is_symlink():
        found.refused.append(Refusal(rules.SETTINGS, "it is a symbolic link"))
        return
    if not file.exists():
        return
    body, _ = read_file(file)
    found.settings, found.settings_body = settings_file.read(body), body
    portable = settings_file.portable(found.settings, place.homes)
    found.files |= settings_file.leaves_of(portable)
    found.held |= {one.key.partition(".")[0] for one in portable.stays if one.holds}
    found.refused += [
        Refusal(rules.SETTINGS, one.reason, _key_line(body, one.key), one.key, expected=True) for one in portable.stays
    ]


def _key_line(body: bytes, key: str) -> int | None:
    name = key.partition("[")[0].rpartition(".")[2].encode()
    return next((number for number, line in enumerate(body.splitlines(), 1) if b'"' + name + b'"' in line), None)


def read_file(file: Path) -> tuple[bytes, bool]:
    """Return a regular file's bytes, and whether its owner may run it.

    Raises FileAccessError for anything else and for a file that is too large.
    """
    with files.translated(file):
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as opened, files.translated(file):
        seen = os.fstat(descriptor)
        if not stat.S_ISREG(seen.st_mode):
            raise FileAccessError(f"{file}: it is not a regular file")
        body = opened.read(MOST_FILE + 1)
    if len(body) > MOST_FILE:
        raise FileAccessError(f"{file}: it has {max(seen.st_size, len(body)):,} bytes, at most {MOST_FILE:,} travel")
    return body, bool(seen.st_mode & stat.S_IXUSR)


def _shown(name: str) -> str:
    """Return a name in the form that travels; one that is not UTF-8 stays as it is, and is refused by its path."""
    return unicodedata.normalize("NFC", name)


def printable(path: str) -> str:
    """Return a path for people and JSON, also one that is not UTF-8."""
    return storable(path.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))
