"""Files that are whole or not there: sums and atomic writes."""

import hashlib
import os
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from membridge.errors import FileAccessError
from membridge.system.files import translated

__all__ = [
    "BLOCK",
    "FileAccessError",
    "copy",
    "discard",
    "free_bytes",
    "fresh_folder",
    "remove",
    "save",
    "sha256_of",
    "sweep",
    "sync",
    "sync_directory",
    "translated",
]

#: Bytes read at once: large enough that the hash leaves the interpreter alone.
BLOCK = 1 << 20


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file as 64 hex digits."""
    with translated(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save(path: Path, content: bytes) -> None:
    """Write `content` to `path`, for its owner only; after a power cut either the old or the new content is there."""
    part = path.with_name(path.name + ".part")
    with translated(path):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        part.unlink(missing_ok=True)
        try:
            with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(content)
                file.flush()
                sync(file.fileno())
            part.replace(path)
        finally:
            discard(part)
        sync_directory(path.parent)


def copy(source: Path, target: Path) -> None:
    """Make `target` a copy of `source`."""
    with translated(target):
        import shutil  # noqa: PLC0415 - it brings three archive formats along

        shutil.copyfile(source, target)


def fresh_folder(folder: Path) -> None:
    """Make an empty folder of one's own, in the place of what is there."""
    with translated(folder):
        remove(folder)
        folder.mkdir(mode=0o700, parents=True)


def remove(path: Path) -> None:
    """Remove a file, or a folder with what it holds; what is gone is fine. Raises OSError."""
    if path.is_dir() and not path.is_symlink():
        import shutil  # noqa: PLC0415 - it brings three archive formats along

        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def discard(path: Path) -> None:
    """Delete what nobody needs any more. That it cannot be deleted is no failure: the next attempt tries again."""
    with suppress(OSError):
        remove(path)


def sweep(folder: Path, pattern: str) -> None:
    """Remove what a process that was killed left in `folder` under names like `pattern`, a day old or more."""
    yesterday = datetime.now(UTC).timestamp() - 86_400
    for path in folder.glob(pattern):
        with suppress(OSError):
            if path.stat().st_mtime < yesterday:
                remove(path)


def free_bytes(folder: Path) -> int:
    """Return the room that is left on the disk of `folder`, or of the nearest folder above it that is there."""
    while not folder.exists():
        folder = folder.parent
    with translated(folder):
        there = os.statvfs(folder)
    return there.f_bavail * there.f_frsize


def sync(descriptor: int) -> None:
    """Force an open file to the disk."""
    os.fsync(descriptor)


def sync_directory(directory: Path) -> None:
    """Force a directory's entries to the disk, so that a rename survives a power cut. Raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
