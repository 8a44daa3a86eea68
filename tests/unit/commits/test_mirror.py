"""The mirror: old or new after any interruption, never a mixture."""

import errno
import hashlib
import os
from pathlib import Path

import pytest

from membridge.commits.chain import Position
from membridge.commits.mirror import Mirror
from membridge.errors import DiskFullError, FileAccessError
from membridge.system import files


def position_of(content: bytes, seq: int = 1) -> Position:
    return Position(seq, 1, hashlib.sha256(content).hexdigest())


def made(mirror: Mirror, content: bytes, seq: int = 1) -> Position:
    staged = mirror.stage()
    staged.write_bytes(content)
    position = position_of(content, seq)
    mirror.adopt(staged, position)
    mirror.advance(position)
    return position


def test_a_mirror_that_was_advanced_is_found_again(tmp_path: Path) -> None:
    position = made(Mirror(tmp_path / "m"), b"one")
    again = Mirror(tmp_path / "m")
    assert again.position() == position
    path = again.path()
    assert path is not None
    assert path.read_bytes() == b"one"


def test_an_adopted_file_is_not_the_mirror_until_the_position_says_so(tmp_path: Path) -> None:
    mirror = Mirror(tmp_path)
    old = made(mirror, b"one")
    staged = mirror.stage()
    staged.write_bytes(b"two")
    mirror.adopt(staged, position_of(b"two", 2))
    assert mirror.position() == old
    path = mirror.path()
    assert path is not None
    assert path.read_bytes() == b"one"


def test_what_an_interrupted_attempt_left_is_swept(tmp_path: Path) -> None:
    mirror = Mirror(tmp_path)
    made(mirror, b"one")
    mirror.stage().write_bytes(b"half")
    made(mirror, b"two", 2)
    assert {path.name for path in tmp_path.iterdir()} == {"position.json", f"{position_of(b'two').sha256[:32]}.db"}


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
    assert {path.name for path in tmp_path.iterdir()} == {"position.json", f"{newer.sha256[:32]}.db"}


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
