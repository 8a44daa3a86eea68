"""The spool on the disk: the events that wait, in the order in which they came, and what is set aside.

Every function is blocking. Errors: FileAccessError and DiskFullError, as `threads.run` translates them.
"""

import os
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from membridge.errors import DiskFullError
from membridge.hooks import hook_file
from membridge.hooks.figures import dropped_of
from membridge.hooks.paths import MOST_BYTES, HookPaths, make_spool
from membridge.system import files

#: What waits at most while it cannot be published: fewer files than let a hook drop its event, and bytes.
KEEP_FILES, KEEP_BYTES = 9_000, 64 << 20
#: Damaged files that are kept for a look.
KEEP_DAMAGED = 100


@dataclass(frozen=True, slots=True, order=True)
class Waiting:
    """A file that waits; in the order of their times, then names."""

    at_ns: int
    name: str
    size: int


def prepare(paths: HookPaths) -> bytes:
    """Make the spool, remove what killed hooks left of files; return the secret that event ids are made with."""
    make_spool(paths)
    files.sweep(paths.incoming, "*")
    try:
        return paths.secret.read_bytes() or _new_secret(paths)
    except FileNotFoundError:
        return _new_secret(paths)


def waiting(paths: HookPaths) -> list[Waiting]:
    """Return what waits, oldest first."""
    found: list[Waiting] = []
    with os.scandir(paths.new) as entries:
        for entry in entries:
            # A file that the reader or a person has just removed.
            with suppress(FileNotFoundError):
                facts = entry.stat(follow_symlinks=False)
                found.append(Waiting(facts.st_mtime_ns, entry.name, facts.st_size))
    return sorted(found)


def read(paths: HookPaths, name: str) -> bytes:
    """Return the content of a waiting file, as much as an event may have; nothing for what is not a file.

    Raises FileNotFoundError for one that was removed meanwhile.
    """
    return hook_file.read(paths.new / name, MOST_BYTES)


def remove(paths: HookPaths, name: str) -> None:
    """Remove an event that was published."""
    (paths.new / name).unlink(missing_ok=True)


def set_aside(paths: HookPaths, name: str) -> Path:
    """Move a damaged file out of the way; of those kept before, the oldest go. Returns where it is now."""
    paths.damaged.mkdir(mode=0o700, exist_ok=True)
    target = paths.damaged / f"{name[:200]}.{secrets.token_hex(4)}"
    with suppress(FileNotFoundError):
        (paths.new / name).rename(target)
    kept = sorted(paths.damaged.iterdir(), key=lambda path: path.lstat().st_mtime_ns)
    for path in kept[:-KEEP_DAMAGED]:
        files.discard(path)
    return target


def trim(paths: HookPaths, *, most_files: int = KEEP_FILES, most_bytes: int = KEEP_BYTES) -> int:
    """Drop the oldest events that are over the bounds; return how many."""
    kept, size, dropped = 0, 0, 0
    for one in reversed(waiting(paths)):
        kept, size = kept + 1, size + one.size
        if kept > most_files or size > most_bytes:
            files.discard(paths.new / one.name)
            dropped += 1
    if dropped:
        # A full disk must not keep the spool from being trimmed.
        with suppress(DiskFullError):
            files.save(paths.dropped, str(dropped_of(paths) + dropped).encode())
    return dropped


def _new_secret(paths: HookPaths) -> bytes:
    files.save(paths.secret, fresh := secrets.token_bytes(32))
    return fresh
