"""The shim `iofault.c` from Python's side: built, described by one shared file, armed and read.

The file's layout is that of `struct state` there. Whoever maps it sees every step of every process that was started
with the shim, also after they were killed.
"""

import mmap
import os
import struct
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

SOURCE = Path(__file__).with_name("iofault.c")
#: Offsets and sizes of `struct state`.
_HEAD, _PREFIX, _RECORD = struct.Struct("=IIIII"), 1004, struct.Struct("=I124s")
#: Steps that are written down; more are counted.
STEPS = 16_384
_SIZE = _HEAD.size + _PREFIX + STEPS * _RECORD.size


class Mode(IntEnum):
    """What happens at the chosen step: nothing, the group is killed, the disk is full from then on, one call fails.

    With `POWER` there is no step: what is forced to the disk is kept aside, as what a power cut would leave.
    The shim knows nothing of `ANSWER`: that is lost by a relay.
    """

    COUNT = 0
    KILL = 1
    FULL = 2
    BROKEN = 3
    POWER = 4
    ANSWER = 5


@dataclass(frozen=True, slots=True)
class Step:
    """A call that changed what outlives the process, or would have."""

    number: int
    pid: int
    call: str
    needs_room: bool
    #: Below the prefix, or `socket`.
    path: str

    def __str__(self) -> str:
        return f"{self.number}: {self.call} {self.path}"


def build(folder: Path, source: Path = SOURCE) -> Path:
    """Compile a shim into `folder` and return the library."""
    library = folder / f"{source.stem}.so"
    command = ["gcc", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True)
    return library


class State:
    """The shared file. Made by whoever starts processes with the shim."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():
            with path.open("wb") as file:
                file.truncate(_SIZE)
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _SIZE)

    def environment(self, library: Path, given: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the environment of a process that takes the shim along."""
        return {**(os.environ if given is None else given), "LD_PRELOAD": str(library), "IOFAULT_STATE": str(self.path)}

    def set(self, mode: Mode, target: int, prefix: Path) -> None:
        """Say what to do at step `target` of those below `prefix`; counting starts anew, unarmed."""
        name = os.fsencode(prefix)
        assert len(name) < _PREFIX
        self._map[: _HEAD.size + _PREFIX] = _HEAD.pack(0, 0, mode, target, 0) + name.ljust(_PREFIX, b"\0")

    def arm(self) -> None:
        """Count from here."""
        self._map[0:4] = struct.pack("=I", 1)

    def disarm(self) -> None:
        """Count and break nothing more."""
        self._map[0:4] = struct.pack("=I", 0)

    @property
    def count(self) -> int:
        """The steps so far."""
        return self._header()[1]

    @property
    def failed(self) -> int:
        """The calls that were made to fail."""
        return self._header()[4]

    def steps(self) -> list[Step]:
        """Return the steps so far, as far as they were written down."""
        found: list[Step] = []
        for number in range(1, min(self.count, STEPS) + 1):
            pid, text = _RECORD.unpack_from(self._map, _HEAD.size + _PREFIX + (number - 1) * _RECORD.size)
            call, needs_room, path = text.rstrip(b"\0").decode(errors="replace").split(" ", 2)
            found.append(Step(number, pid, call, needs_room == "1", path))
        return found

    def close(self) -> None:
        """Unmap it."""
        self._map.close()

    def _header(self) -> tuple[int, ...]:
        return _HEAD.unpack_from(self._map, 0)
