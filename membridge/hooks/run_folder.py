"""The folder of questions, answers and heartbeat: in memory, as a beat every two seconds would wear out a card.

`<state folder>/run` is a link to it, which the daemon sets anew at each start. So it is found under one path even if
the daemon and Claude Code were started with different environments.
"""

import hashlib
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from membridge.hooks.paths import HookPaths
from membridge.system import clock, files

#: Where everyone may make a folder in memory, where the user has none of its own.
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - the folder that is made in it is checked
#: Seconds without a beat after which a folder in shared memory is of no daemon any more.
FORGOTTEN = 86_400.0


def open_run_folder(paths: HookPaths, environ: Mapping[str, str]) -> Path:
    """Make the folder, for its owner only, its two folders anew, and the link; return where it is. Blocking.

    Errors: DiskFullError, FileAccessError.
    """
    state = paths.run.parent
    name = f"membridge-{os.getuid()}-{hashlib.sha256(os.fsencode(state)).hexdigest()[:12]}"
    _sweep(SHARED_MEMORY, f"membridge-{os.getuid()}-*", paths.heartbeat.name)
    for place in _places(environ):
        if _is_ours_after_making(place / name):
            _link(paths, place / name)
            return _furnished(paths, place / name)
    with files.translated(paths.run):
        if paths.run.is_symlink():
            paths.run.unlink()
        paths.run.mkdir(mode=0o700, parents=True, exist_ok=True)
    return _furnished(paths, paths.run)


def close_run_folder(paths: HookPaths, folder: Path) -> None:
    """Remove questions, answers, heartbeat, folder and link, as far as they are there. Blocking."""
    for path in (paths.heartbeat, paths.questions, paths.answers):
        files.discard(folder / path.name)
    files.remove_if_empty(folder)
    if paths.run.is_symlink():
        files.discard(paths.run)


def _furnished(paths: HookPaths, folder: Path) -> Path:
    """Return the folder with those of questions and answers, empty: nobody waits for a daemon that was killed."""
    with files.translated(folder):
        for path in (paths.questions, paths.answers):
            files.remove(folder / path.name)
            (folder / path.name).mkdir(mode=0o700)
    return folder


def _places(environ: Mapping[str, str]) -> Iterator[Path]:
    named = [environ.get(name, "").split(":")[0] for name in ("RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR")]
    yield from (Path(one) for one in named if one.startswith("/"))
    yield Path(f"/run/user/{os.getuid()}")
    yield SHARED_MEMORY


def _is_ours_after_making(folder: Path) -> bool:
    """Make a folder; return whether it is there, this user's own and closed to others."""
    try:
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
        facts = folder.lstat()
    except OSError:
        return False
    # In shared memory another user may have made it first, to read or to answer.
    return stat.S_ISDIR(facts.st_mode) and facts.st_uid == os.getuid() and not facts.st_mode & 0o077


def _link(paths: HookPaths, folder: Path) -> None:
    with files.translated(paths.run):
        paths.run.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if paths.run.is_dir() and not paths.run.is_symlink():
            files.remove(paths.run)
        part = paths.run.with_name(f"{paths.run.name}.part")
        part.unlink(missing_ok=True)
        part.symlink_to(folder)
        part.replace(paths.run)


def _sweep(place: Path, pattern: str, heartbeat: str) -> None:
    """Remove the folders of daemons that were killed and never started again."""
    now = clock.now().timestamp()
    for folder in place.glob(pattern):
        with suppress(OSError):
            beat = folder / heartbeat
            last = (beat if beat.exists() else folder).lstat()
            if now - last.st_mtime > FORGOTTEN and last.st_uid == os.getuid():
                files.discard(folder)
