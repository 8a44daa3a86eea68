"""A node's copy of the newest snapshot it knows, a memory file, and the position that says which one it is.

A mirror moves on in one transaction of its file; the position is written after it, and `settle` makes up for a crash
between the two. A mirror that is built anew gets a name of its own, and the position names it last. Nothing but this
module and who has the project's lane writes in the mirror's folder. A forgotten mirror is not the base of a merge any
more. It is kept until there is a new one, because it may be the last whole copy of the memory.
"""

import secrets
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from membridge.aio.deadline import Deadline
from membridge.claudemem.connection import MEMORY_SUFFIX
from membridge.claudemem.translate import is_damage, translated
from membridge.commits.chain import Position
from membridge.errors import FileAccessError, MembridgeError
from membridge.merge.memory_file import MemoryFile
from membridge.system import files
from membridge.system.logging import get_logger

log = get_logger("membridge.commits")

_POSITION, _FORMER = "position.json", "former.json"


@dataclass(frozen=True, slots=True)
class _Noted:
    """What stands in a position's file: the position, and the name of the memory file."""

    position: Position
    file: str


class Mirror:
    """The mirror of one project in its own folder. Not safe for two users at once: its owner serialises."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def position(self) -> Position | None:
        """Return what the mirror is, None when there is none, its file is gone or its position damaged.

        Raises FileAccessError when the position cannot be read: the mirror may exist and must not be swept.
        """
        noted = self._read(_POSITION)
        return None if noted is None else noted.position

    def path(self) -> Path | None:
        """Return the mirror's memory file, None when there is none."""
        noted = self._read(_POSITION)
        return None if noted is None else self.directory / noted.file

    def last(self) -> tuple[Position, Path] | None:
        """Return the mirror, or the one that was forgotten last where there is none: what `recover` commits."""
        noted = self._read(_POSITION) or self._read(_FORMER)
        return None if noted is None else (noted.position, self.directory / noted.file)

    def settle(self, *, deadline: Deadline) -> None:
        """Bring the position to the file after a crash between the two; forget a mirror that is neither state.

        Errors: those of a file that cannot be read now, and may be sound.
        """
        noted = self._read(_POSITION)
        if noted is None:
            return
        path = self.directory / noted.file
        try:
            with translated(path), closing(MemoryFile(path, deadline=deadline)) as memory:
                digest, moved = memory.digest(), _decoded(memory.position())
        except MembridgeError as error:
            if not is_damage(error):
                # A forgotten mirror is no base any more, so that the next merge cannot tell which side edited a row.
                raise
            digest, moved = "", None
            log.warning("mirror cannot be read", reason=error.message)
        if digest == noted.position.sha256:
            return
        if moved is not None and moved.sha256 == digest:
            self.advance(moved)
        else:
            log.error("mirror is not what it should be, the next pull makes a new one", path=noted.file)
            self.forget()

    def stage(self) -> Path:
        """Return an empty place for a file that may become the mirror; what an earlier attempt left is gone."""
        with files.translated(self.directory):
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            for path in self._leftovers():
                files.remove(path)
        return self.directory / f"staged{MEMORY_SUFFIX}"

    def adopt(self, staged: Path, position: Position) -> None:
        """Make a staged memory file, which nobody has open, the mirror; the old one and a forgotten one are gone."""
        target = self.directory / f"{position.sha256[:16]}-{secrets.token_hex(4)}{MEMORY_SUFFIX}"
        with files.translated(target):
            files.put_in_place(staged, target)
            files.leave_cache(target)
        self._note(position, target.name)

    def advance(self, position: Position) -> None:
        """Note that the mirror's file is at `position` now."""
        noted = self._read(_POSITION)
        if noted is not None:
            self._note(position, noted.file)

    def forget(self) -> None:
        """Have no mirror from now on: the next pull takes a full snapshot. `last` is still what it was."""
        path = self.directory / _POSITION
        is_mirror = self.position() is not None
        with files.translated(path):
            if is_mirror:
                path.replace(self.directory / _FORMER)
                files.sync_path(self.directory)
            elif path.exists():
                path.unlink()
                files.sync_path(self.directory)
        self.sweep()

    def sweep(self) -> None:
        """Delete everything but the mirror: what an attempt that failed or was killed left. Nothing when in doubt."""
        with suppress(FileAccessError):
            for path in self._leftovers():
                files.discard(path)

    def _note(self, position: Position, name: str) -> None:
        files.save(self.directory / _POSITION, msgspec.json.encode(_Noted(position, name)))
        files.discard(self.directory / _FORMER)
        self.sweep()

    def _leftovers(self) -> list[Path]:
        kept = {noted.file for name in (_POSITION, _FORMER) if (noted := self._read(name))}
        found = [path for pattern in ("*.db*", "*.part", f"*{MEMORY_SUFFIX}*") for path in self.directory.glob(pattern)]
        # SQLite's own files beside a memory file have its name with something behind it.
        return [path for path in found if not any(path.name.startswith(name) for name in kept)]

    def _read(self, name: str) -> _Noted | None:
        path = self.directory / name
        try:
            with files.translated(path):
                content = path.read_bytes() if path.exists() else b""
            noted = msgspec.json.decode(content, type=_Noted)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        file = self.directory / noted.file
        with files.translated(self.directory):
            return noted if file.parent == self.directory and file.is_file() else None


def encoded(position: Position) -> bytes:
    """Return a position as a memory file notes it."""
    return msgspec.json.encode(position)


def _decoded(content: bytes) -> Position | None:
    try:
        return msgspec.json.decode(content, type=Position)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
