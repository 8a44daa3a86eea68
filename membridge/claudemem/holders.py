"""Which other programs have a database file open, according to /proc."""

import os
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

#: What SQLite keeps beside a database.
COMPANIONS = ("-wal", "-shm", "-journal")
#: Seconds that `lsof` may take, where the system has no /proc.
_PATIENCE = 10.0


@dataclass(frozen=True, slots=True)
class Holder:
    """A process that has the database open, and its program."""

    pid: int
    program: str

    def __str__(self) -> str:
        return f"{self.program} (pid {self.pid})"


def holders(database: Path) -> list[Holder]:
    """Return the other processes of this user that have the database or its WAL open. Blocking.

    Without /proc and `lsof` nothing can be asked, and the list is empty.
    """
    files = [path for path in (database, *(Path(f"{database}{end}") for end in COMPANIONS)) if path.exists()]
    proc = Path("/proc/self/fd")
    found = _by_proc(files) if proc.is_dir() else _by_lsof(files)
    return [holder for holder in found if holder.pid != os.getpid()]


def _by_proc(files: list[Path]) -> list[Holder]:
    wanted: set[tuple[int, int]] = set()
    for path in files:
        with suppress(OSError):
            there = path.stat()
            wanted.add((there.st_dev, there.st_ino))
    found: list[Holder] = []
    for process in Path("/proc").iterdir():
        # Processes end meanwhile, and those of other users do not show what they have open.
        with suppress(OSError):
            if process.name.isdigit() and _has_open(process, wanted):
                program = (process / "comm").read_text(encoding="utf-8", errors="replace").strip()
                found.append(Holder(int(process.name), program))
    return found


def _has_open(process: Path, wanted: set[tuple[int, int]]) -> bool:
    for descriptor in (process / "fd").iterdir():
        with suppress(OSError):
            there = descriptor.stat()
            if (there.st_dev, there.st_ino) in wanted:
                return True
    return False


def _by_lsof(files: list[Path]) -> list[Holder]:
    program = shutil.which("lsof")
    if program is None or not files:
        return []
    try:
        said = subprocess.run(  # noqa: S603 - the system's own lsof, on paths of ours
            [program, "-F", "pc", "--", *map(str, files)],
            capture_output=True, check=False, encoding="utf-8", errors="replace", timeout=_PATIENCE,
        ).stdout  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return []
    pids: dict[int, str] = {}
    pid = 0
    for line in said.splitlines():
        if line.startswith("p") and line[1:].isdigit():
            pid = int(line[1:])
            pids[pid] = "a program"
        elif line.startswith("c") and pid:
            pids[pid] = line[1:]
    return [Holder(pid, name) for pid, name in pids.items()]
