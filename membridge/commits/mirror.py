"""A node's pristine local copy of the newest snapshot it knows, and the position that says which one it is.

The position is written last: a crash at any point leaves the old mirror with the old position, or the new with the new.
Nothing but this module writes in the mirror's folder, and a mirror file never changes once its position names it. A
forgotten mirror is not the base of a merge any more. It is kept until there is a new one, because it may be the last
whole copy of the memory.
"""

import mmap
from contextlib import suppress
from pathlib import Path

import msgspec

from membridge.commits.chain import Position
from membridge.errors import FileAccessError
from membridge.system import files

_POSITION, _FORMER = "position.json", "former.json"


class Mirror:
    """The mirror of one project in its own folder. Not safe for two users at once: its owner serialises."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def position(self) -> Position | None:
        """Return what the mirror is, None when there is none, its file is gone or its position damaged.

        Raises FileAccessError when the position cannot be read: the mirror may exist and must not be swept.
        """
        return self._read(_POSITION)

    def path(self) -> Path | None:
        """Return the mirror's database file, None when there is none."""
        position = self.position()
        return None if position is None else self._file(position)

    def last(self) -> tuple[Position, Path] | None:
        """Return the mirror, or the one that was forgotten last where there is none: what `recover` commits."""
        position = self.position() or self._read(_FORMER)
        return None if position is None else (position, self._file(position))

    def stage(self) -> Path:
        """Return an empty place for a file that may become the mirror; what an earlier attempt left is gone."""
        with files.translated(self.directory):
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            for path in self._leftovers():
                files.remove(path)
        return self.directory / "staged.db"

    def adopt(self, staged: Path, position: Position) -> Path:
        """Give a staged, verified file its final name and return it. The position still names the old one."""
        target = self._file(position)
        if staged != target:
            with files.translated(target):
                files.put_in_place(staged, target)
        return target

    def advance(self, position: Position) -> None:
        """Make the adopted file of `position` the mirror; the old one and a forgotten one are gone."""
        files.save(self.directory / _POSITION, msgspec.json.encode(position))
        files.discard(self.directory / _FORMER)
        self.sweep()

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

    def _leftovers(self) -> list[Path]:
        kept = {self._file(position) for name in (_POSITION, _FORMER) if (position := self._read(name))}
        found = [*self.directory.glob("*.db*"), *self.directory.glob("*.part")]
        return [path for path in found if path not in kept]

    def _read(self, name: str) -> Position | None:
        path = self.directory / name
        try:
            with files.translated(path):
                content = path.read_bytes() if path.exists() else b""
            position = msgspec.json.decode(content, type=Position)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        with files.translated(self.directory):
            return position if self._file(position).is_file() else None

    def _file(self, position: Position) -> Path:
        return self.directory / f"{position.sha256[:32]}.db"


def map_file(path: Path) -> mmap.mmap:
    """Return the bytes of a database file without reading them into memory; the caller closes it."""
    with files.translated(path), path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
