"""The mirror: old or new after any interruption, never a mixture."""

import errno
import hashlib
import os
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from membridge.aio.deadline import Deadline
from membridge.claudemem import canonical
from membridge.commits.chain import Position
from membridge.commits.mirror import Mirror, encoded
from membridge.errors import DiskFullError, FileAccessError, MembridgeError
from membridge.merge.memory_file import MemoryFile
from membridge.merge.row_stream import Link, Message, Origin, Schema, Sent, Tail
from membridge.system import files

TABLES = {
    "sdk_sessions": Origin(["platform_source", "content_session_id"], ["platform_source", "content_session_id"], {})
}


def soon() -> Deadline:
    """Return a deadline that nothing here needs."""
    return Deadline.after(60.0)


def canonical_row(name: bytes) -> bytes:
    """Return a session as it travels."""
    content = {"content_session_id": name.decode(), "platform_source": "claude"}
    return msgspec.msgpack.encode((canonical.VERSION, "sdk_sessions", content))


def a_row(name: bytes) -> list[Message]:
    """Return a session as a message."""
    return [Sent("sdk_sessions", canonical_row(name), 1)]


def tail_of(*names: bytes) -> Tail:
    """Return the end of a stream that leads to a memory of these sessions."""
    return Tail({"sdk_sessions": len(names)}, {"sdk_sessions": canonical.total(map(canonical_row, names))})


def fill(memory: MemoryFile, name: bytes) -> None:
    """Make an empty memory one of one session."""
    schema = Schema(4096, 0, 0, [], [], {})
    memory.know(schema, TABLES)
    memory.take_in([Link({}), *a_row(name), tail_of(name)])


def position_of(content: bytes, seq: int = 1) -> Position:
    return Position(seq, 1, hashlib.sha256(content).hexdigest())


def made(mirror: Mirror, content: bytes, seq: int = 1) -> Position:
    staged = mirror.stage()
    staged.write_bytes(content)
    position = position_of(content, seq)
    mirror.adopt(staged, position)
    return position


def test_a_mirror_that_was_advanced_is_found_again(tmp_path: Path) -> None:
    position = made(Mirror(tmp_path / "m"), b"one")
    again = Mirror(tmp_path / "m")
    assert again.position() == position
    path = again.path()
    assert path is not None
    assert path.read_bytes() == b"one"


def test_a_mirror_that_moves_on_keeps_its_file(tmp_path: Path) -> None:
    mirror = Mirror(tmp_path)
    made(mirror, b"one")
    path = mirror.path()
    newer = position_of(b"two", 2)
    mirror.advance(newer)
    assert (mirror.position(), mirror.path()) == (newer, path)


@pytest.mark.parametrize("killed", ["before the transaction ends", "before the position is noted"])
def test_a_mirror_that_was_killed_while_it_moved_is_one_of_two_states(tmp_path: Path, killed: str) -> None:
    mirror = Mirror(tmp_path)
    with closing(MemoryFile(mirror.stage(), deadline=soon(), building=True)) as memory:
        fill(memory, b"one")
        first, staged = Position(1, 1, memory.digest()), memory.path
    mirror.adopt(staged, first)
    path = mirror.path()
    assert path is not None
    with closing(MemoryFile(path, deadline=soon())) as memory:
        memory.begin()
        memory.take_in([Link(memory.sums()), *a_row(b"two"), tail_of(b"one", b"two")])
        second = Position(2, 1, memory.digest())
        if killed == "before the position is noted":
            memory.commit(encoded(second))

    assert mirror.position() == first
    mirror.settle(deadline=soon())

    assert mirror.position() == (first if killed == "before the transaction ends" else second)
    assert mirror.path() == path


def test_a_mirror_that_is_neither_state_is_forgotten(tmp_path: Path) -> None:
    mirror = Mirror(tmp_path)
    with closing(MemoryFile(mirror.stage(), deadline=soon(), building=True)) as memory:
        fill(memory, b"one")
        staged = memory.path
    mirror.adopt(staged, position_of(b"another"))
    mirror.settle(deadline=soon())
    assert mirror.position() is None


@pytest.mark.parametrize("content", [b"not a database", b""])
def test_a_mirror_that_cannot_be_read_is_forgotten(tmp_path: Path, content: bytes) -> None:
    mirror = Mirror(tmp_path)
    made(mirror, content)
    mirror.settle(deadline=soon())
    assert mirror.position() is None
    assert mirror.last() is not None


def test_a_mirror_that_cannot_be_opened_just_now_is_kept(tmp_path: Path) -> None:
    mirror = Mirror(tmp_path)
    with closing(MemoryFile(mirror.stage(), deadline=soon(), building=True)) as memory:
        fill(memory, b"one")
        position = Position(1, 1, memory.digest())
        memory.settle()
        staged = memory.path
    mirror.adopt(staged, position)
    path = mirror.path()
    assert path is not None
    # SQLite cannot make its WAL there: as with too many open files, an I/O error, or a folder of another user.
    blocked = path.with_name(f"{path.name}-wal")
    blocked.unlink(missing_ok=True)
    blocked.mkdir()
    with pytest.raises(MembridgeError, match="cannot be opened"):
        mirror.settle(deadline=soon())
    assert mirror.position() == position
    blocked.rmdir()
    mirror.settle(deadline=soon())
    assert mirror.position() == position


def test_what_an_interrupted_attempt_left_is_swept(tmp_path: Path) -> None:
    mirror = Mirror(tmp_path)
    made(mirror, b"one")
    mirror.stage().write_bytes(b"half")
    made(mirror, b"two", 2)
    path = mirror.path()
    assert path is not None
    assert {entry.name for entry in tmp_path.iterdir()} == {"position.json", path.name}


def test_the_folder_of_objects_that_a_killed_pull_left_is_swept_too(tmp_path: Path) -> None:
    mirror = Mirror(tmp_path)
    made(mirror, b"one")
    folder = tmp_path / "objects.part"
    folder.mkdir()
    (folder / "0123").write_bytes(b"half")
    mirror.stage()
    assert not folder.exists()


def test_the_folder_that_a_killed_download_left_does_not_stop_the_next_one(tmp_path: Path) -> None:
    mirror = Mirror(tmp_path)
    made(mirror, b"one")
    downloads = tmp_path / "objects.part"
    downloads.mkdir()
    (downloads / "half").write_bytes(b"half an object")
    made(mirror, b"two", 2)
    assert not downloads.exists()


def test_a_position_without_its_file_is_no_mirror(tmp_path: Path) -> None:
    mirror = Mirror(tmp_path)
    made(mirror, b"one")
    path = mirror.path()
    assert path is not None
    path.unlink()
    assert mirror.position() is None
    assert mirror.path() is None


@pytest.mark.parametrize("garbage", [b"", b"{", b"[]", b'{"seq":"x"}', b"\xff\xfe"])
def test_a_damaged_position_is_no_mirror(tmp_path: Path, garbage: bytes) -> None:
    mirror = Mirror(tmp_path)
    made(mirror, b"one")
    (tmp_path / "position.json").write_bytes(garbage)
    assert mirror.position() is None


def test_a_mirror_whose_position_cannot_be_read_is_not_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mirror = Mirror(tmp_path)
    position = made(mirror, b"one")

    def fails(_: Path) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_bytes", fails)
        for act in (mirror.position, mirror.path, mirror.stage):
            with pytest.raises(FileAccessError, match="Input/output error"):
                act()
        mirror.sweep()

    assert mirror.position() == position


def test_a_forgotten_mirror_is_none_but_its_file_stays_until_there_is_another(tmp_path: Path) -> None:
    mirror = Mirror(tmp_path)
    position = made(mirror, b"one")
    # Forgotten twice, and with what a killed attempt left, it is still there.
    for _ in range(2):
        mirror.forget()
        mirror.stage().write_bytes(b"half")
        mirror.sweep()
        assert (mirror.position(), mirror.path()) == (None, None)
        last = mirror.last()
        assert last is not None
        assert (last[0], last[1].read_bytes()) == (position, b"one")
    newer = made(mirror, b"two", 2)
    assert mirror.last() == (newer, mirror.path())
    path = mirror.path()
    assert path is not None
    assert {entry.name for entry in tmp_path.iterdir()} == {"position.json", path.name}


def test_a_mirror_that_is_worthless_does_not_replace_a_forgotten_one(tmp_path: Path) -> None:
    mirror = Mirror(tmp_path)
    position = made(mirror, b"one")
    mirror.forget()
    (tmp_path / "position.json").write_bytes(b"{")
    mirror.forget()
    last = mirror.last()
    assert last is not None
    assert last[0] == position
    assert [path.name for path in tmp_path.glob("*.json")] == ["former.json"]


def test_a_full_disk_is_one_clear_error() -> None:
    full = Path("/dev/full")
    with pytest.raises(DiskFullError, match="/dev/full"), files.translated(full), full.open("wb", buffering=0) as file:
        file.write(b"x")


def test_a_saved_file_is_whole_or_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.json"
    files.save(path, b"one")
    files.save(path, b"two")
    assert path.read_bytes() == b"two"
    assert [entry.name for entry in path.parent.iterdir()] == ["file.json"]


def test_what_a_killed_fetch_left_is_swept(tmp_path: Path) -> None:
    mirror = Mirror(tmp_path)
    staged = mirror.stage()
    staged.write_bytes(b"half")
    (tmp_path / "objects.part").mkdir()
    (tmp_path / "objects.part" / "1.zst").write_bytes(b"half")
    (tmp_path / "other.part").write_bytes(b"half")
    mirror.stage()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_saved_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.mkdir()
    with pytest.raises(files.FileAccessError):
        files.save(path, b"one")
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.json"]
