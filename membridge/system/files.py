"""Files: checksums, atomic writes, free room, and the one table from OSError to this project's errors.

A full or failing disk, a missing folder or permission becomes a sentence with the file's name and a remedy, in every
command and in the daemon's log; never a traceback.
"""

import errno
import hashlib
import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from membridge.errors import DiskFullError, FileAccessError, MembridgeError
from membridge.system import clock
from membridge.system.windows import on_windows

#: Bytes read at once: large enough that the hash leaves the interpreter alone.
BLOCK = 1 << 20


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file as 64 hex digits."""
    with translated(path), path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save(path: Path, content: bytes) -> None:
    """Write `content` to `path`, for its owner only; after a power cut either the old or the new content is there."""
    part = _part(path)
    with translated(path):
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        part.unlink(missing_ok=True)
        try:
            with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(content)
            put_in_place(part, path)
        finally:
            discard(part)


def read_if_there(path: Path) -> bytes | None:
    """Return the content of a file, None if there is no such file."""
    with translated(path):
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None


def put_in_place(part: Path, path: Path) -> None:
    """Give a finished file its name; after a power cut either the old or the new file has it. Raises OSError."""
    sync_path(part)
    part.replace(path)
    sync_path(path.parent)


def leave_cache(path: Path) -> None:
    """Let the system forget what it holds of a file that was written at once and forced to the disk.

    It holds that in large pieces, and counts the whole piece as written when a page of it changes: 3.5 MB for 30 pages.
    """
    advise = getattr(os, "posix_fadvise", None)
    if advise is None:
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        advise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


def copy(source: Path, target: Path) -> None:
    """Make `target` a copy of `source`."""
    with translated(target):
        import shutil  # noqa: PLC0415 - it brings three archive formats along

        shutil.copyfile(source, target)


def fresh_folder(folder: Path) -> None:
    """Make `folder` empty and readable only for its owner; what it held is removed."""
    with translated(folder):
        remove(folder)
        folder.mkdir(mode=0o700, parents=True)


def remove(path: Path) -> None:
    """Remove a file, or a folder with its content, if it exists. Raises OSError."""
    if path.is_dir() and not path.is_symlink():
        import shutil  # noqa: PLC0415 - it brings three archive formats along

        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def discard(path: Path) -> None:
    """Delete a file that is not needed any more. A failure is ignored: the next attempt tries again."""
    with suppress(OSError):
        remove(path)


def discard_saved(path: Path) -> None:
    """Delete a file that `save` wrote, and what a killed process left of it. A failure is ignored."""
    discard(path)
    discard(_part(path))


def _part(path: Path) -> Path:
    return path.with_name(path.name + ".part")


def remove_if_empty(folder: Path) -> None:
    """Remove a folder if it is there and empty: one that holds what something else put there stays."""
    with suppress(OSError):
        folder.rmdir()


def sweep(folder: Path, pattern: str) -> None:
    """Remove what a killed process left in `folder` under names like `pattern`, if it is at least a day old."""
    yesterday = clock.now().timestamp() - 86_400
    for path in folder.glob(pattern):
        with suppress(OSError):
            if path.stat().st_mtime < yesterday:
                remove(path)


def free_bytes(folder: Path) -> int:
    """Return the free room on the disk of `folder`, or of the nearest existing folder above it."""
    while not folder.exists():
        folder = folder.parent
    with translated(folder):
        there = os.statvfs(folder)
    return there.f_bavail * there.f_frsize


def open_to_others(mode: int, bits: int = 0o077) -> bool:
    """Return whether `mode` gives others one of the rights `bits`.

    On Windows it gives none: there an access list decides, which a file has from its folder, and the mode is made up.
    """
    return bool(mode & bits) and not on_windows()


def sync(descriptor: int) -> None:
    """Force an open file to the disk. Raises OSError."""
    os.fsync(descriptor)


def sync_path(path: Path) -> None:
    """Force a file to the disk, or the entries of a folder, so that a rename survives a power cut. Raises OSError.

    Windows forces what is open for writing alone, and cannot open a folder: its journal has the rename.
    """
    if on_windows() and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDWR if on_windows() else os.O_RDONLY)
    try:
        sync(descriptor)
    finally:
        os.close(descriptor)


def force(path: Path) -> None:
    """Force a file to the disk. Raises DiskFullError, FileAccessError."""
    with translated(path):
        sync_path(path)


#: The numbers of a full disk, and of a failing one.
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
FAILING = frozenset(
    number for name in ("EIO", "ENXIO", "ENODEV", "EUCLEAN", "EREMOTEIO") if (number := getattr(errno, name, None))
)


@contextmanager
def translated(path: Path) -> Generator[None]:
    """Raise an OSError of the body as DiskFullError or FileAccessError that names `path`."""
    try:
        yield
    except OSError as error:
        raise meaning(error, path) from error


#: What helps if a file cannot be read or written.
CHECK = "check its permissions, and the disk that it is on"


def meaning(
    error: OSError,
    path: Path | None = None,
    *,
    otherwise: type[MembridgeError] = FileAccessError,
    remedy: str = CHECK,
) -> MembridgeError:
    """Return an OSError about `path`, or about the path that it names, as an error of this project.

    If neither a full nor a failing disk is the cause, it is of the class `otherwise`, with `remedy`.
    """
    named = error.filename2 or error.filename
    if path is None:
        path = Path(os.fsdecode(named)) if isinstance(named, str | bytes) else Path("a file of membridge")
    if error.errno in FULL:
        return full(path)
    if error.errno in FAILING:
        return failing(path, error.strerror or str(error))
    return otherwise(f"{path}: {error.strerror or error}", remedy=remedy)


def of_file(error: BaseException) -> MembridgeError | None:
    """Return an OSError about a file as an error of this project; None for any other exception."""
    # Errors of a connection are not those of a disk.
    if not isinstance(error, OSError) or isinstance(error, ConnectionError | TimeoutError):
        return None
    return meaning(error)


def full(path: Path) -> DiskFullError:
    """Return the error for a write without room."""
    return DiskFullError(f"no space left while writing {path}")


def failing(path: Path, reason: str) -> FileAccessError:
    """Return the error for a file whose disk fails."""
    return FileAccessError(
        f"{path}: {reason}",
        remedy="the disk may be failing: copy its data to another disk, and read the system's log (`dmesg`)",
    )
