"""The enrolment service's access log: who was invited, enrolled, refused and revoked, one JSON object a line.

A record is written before the answer is sent, so the log misses nothing that was granted. It holds no secret and is
bounded: a full file becomes `access.log.1`.
"""

import os
from collections import deque
from pathlib import Path

import msgspec

from membridge.system import files
from schemas.access import AccessRecord
from schemas.wire import WireError, decode, encode

#: Bytes after which a new file begins, and how many records are shown.
MAX_BYTES, SHOWN = 1 << 20, 200
#: Longest line that is read back.
_MAX_LINE = 64 << 10


class AccessLog:
    """One file. Blocking, for one caller at a time."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def add(self, record: AccessRecord) -> None:
        """Append a record and sync it to the disk. Raises DiskFullError and FileAccessError."""
        with files.translated(self._path):
            if self._path.is_file() and self._path.stat().st_size > MAX_BYTES:
                self._path.replace(self._path.with_name(self._path.name + ".1"))
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            with os.fdopen(descriptor, "ab") as file:
                # This record must not continue a line that a crash cut off.
                file.write((b"" if self._ends_whole() else b"\n") + encode(record) + b"\n")
                file.flush()
                files.sync(file.fileno())

    def newest(self) -> list[AccessRecord]:
        """Return the newest records, newest first, without lines that a crash cut off."""
        found: deque[AccessRecord] = deque(maxlen=SHOWN)
        for path in (self._path.with_name(self._path.name + ".1"), self._path):
            try:
                lines = path.read_bytes().splitlines()
            except FileNotFoundError:
                continue
            for line in lines:
                try:
                    found.append(decode(line, AccessRecord, limit=_MAX_LINE))
                except (WireError, msgspec.DecodeError):
                    continue
        return list(found)[::-1]

    def _ends_whole(self) -> bool:
        if not self._path.is_file() or self._path.stat().st_size == 0:
            return True
        with self._path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"
