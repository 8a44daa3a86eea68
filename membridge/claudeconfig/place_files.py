"""Files below the configuration folder: written whole or not at all, and never through a symbolic link. Blocking."""

import os
import stat
from pathlib import Path

from membridge.claudeconfig.collect import read_file
from membridge.claudeconfig.three_way import Leaf
from membridge.errors import FileAccessError
from membridge.system import files

#: Permissions of a new file and of a new program, less what the user's mask takes.
_FILE, _PROGRAM, _FOLDER = 0o666, 0o777, 0o777


def current(root: Path, path: str) -> bytes | None:
    """Return what a file holds now, None where there is none. Raises FileAccessError for anything but a file."""
    target = _checked(root, path, make=False)
    if target is None or not _exists(target):
        return None
    return read_file(target)[0]


def write(root: Path, path: str, leaf: Leaf) -> None:
    """Write a file; after a power cut the old or the new one is there. An existing one keeps its permissions.

    Errors: FileAccessError for a link or a file where a folder belongs, DiskFullError.
    """
    target = _checked(root, path, make=True)
    if target is None:
        raise FileAccessError(f"{root / path}: its folder cannot be made")
    with files.translated(target):
        mode = _PROGRAM if leaf.executable else _FILE
        part = _part_of(target)
        part.unlink(missing_ok=True)
        try:
            with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode), "wb") as file:
                file.write(leaf.body)
                if _exists(target):
                    os.fchmod(file.fileno(), _mode_of(target, leaf))
            files.put_in_place(part, target)
        finally:
            files.discard(part)


def discard_part(root: Path, path: str) -> None:
    """Remove what a killed write of a file left."""
    files.discard(_part_of(root / path))


def new_folders(root: Path, path: str) -> list[str]:
    """Return the folders on the way to a file that do not exist yet."""
    names = path.split("/")[:-1]
    ways = ["/".join(names[: depth + 1]) for depth in range(len(names))]
    return [way for way in ways if not (root / way).exists()]


def _checked(root: Path, path: str, *, make: bool) -> Path | None:
    """Return where a file is, each folder on the way looked at; None where one is missing."""
    folder = root
    *names, last = path.split("/")
    for name in names:
        folder /= name
        with files.translated(folder):
            try:
                seen = folder.lstat()
            except FileNotFoundError:
                if not make:
                    return None
                folder.mkdir(mode=_FOLDER)
                continue
        if not stat.S_ISDIR(seen.st_mode):
            raise FileAccessError(f"{folder}: it is a link or a file where a folder belongs", remedy="move it away")
    target = folder / last
    if _exists(target) and not stat.S_ISREG(target.lstat().st_mode):
        raise FileAccessError(f"{target}: it is a link or a folder where a file belongs", remedy="move it away")
    return target


def _part_of(target: Path) -> Path:
    return target.with_name(f".{target.name[:200]}.membridge.part")


def _exists(path: Path) -> bool:
    return os.path.lexists(path)


def _mode_of(target: Path, leaf: Leaf) -> int:
    mode = stat.S_IMODE(target.lstat().st_mode)
    readable = (mode & 0o444) >> 2
    return mode | readable if leaf.executable else mode & ~0o111
