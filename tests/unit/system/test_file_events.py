"""Events of files: what is reported, what is not, and where there are none to get."""

import errno
import os
import select
from pathlib import Path

import pytest

from membridge.system import file_events
from membridge.system.file_events import Inotify, Names, open_events, remote_kind
from membridge.system.vnode_events import VnodeEvents

NAMES = Names(frozenset({"a.db"}), frozenset({"a.db-wal"}))


def test_only_named_files_are_reported(tmp_path: Path) -> None:
    events = Inotify({tmp_path: NAMES})
    (tmp_path / "other").write_text("x")
    other = events.read()
    (tmp_path / "a.db-wal").write_text("x")
    assert select.select([events.fileno()], [], [], 0)[0]

    assert not other
    assert events.read()
    assert not events.read()
    events.close()


def test_every_file_is_reported_where_that_was_asked_for(tmp_path: Path) -> None:
    (tmp_path / "all").mkdir()
    events = Inotify({tmp_path: NAMES, tmp_path / "all": Names(every=True)})
    (tmp_path / "other").write_text("x")
    other = events.read()
    (tmp_path / "all" / "any").write_text("x")

    assert not other
    assert events.read()
    events.close()


def test_a_write_in_place_a_rename_and_a_deletion_are_events(tmp_path: Path) -> None:
    wal = tmp_path / "a.db-wal"
    wal.write_bytes(b"0123")
    events = Inotify({tmp_path: NAMES})
    with wal.open("r+b") as file:
        os.pwrite(file.fileno(), b"9", 0)
        wrote = events.read()
    wal.rename(tmp_path / "away")
    renamed = events.read()
    (tmp_path / "away").rename(wal)
    returned = events.read()
    wal.unlink()

    assert (wrote, renamed, returned, events.read()) == (True, True, True, True)
    assert not events.is_over
    events.close()


@pytest.mark.parametrize("way", ["deleted", "moved"])
def test_a_folder_that_goes_ends_the_events(tmp_path: Path, way: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    events = Inotify({folder: NAMES})
    if way == "deleted":
        folder.rmdir()
    else:
        folder.rename(tmp_path / "elsewhere")

    assert events.read()
    assert events.is_over
    events.close()


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        open_events({tmp_path / "missing": NAMES})


@pytest.mark.parametrize(
    ("kind", "is_remote"), [("nfs4", True), ("9p", True), ("fuse.sshfs", True), ("ext4", False), ("fuseblk", False)]
)
def test_a_file_system_of_other_machines_has_no_events(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, is_remote: bool
) -> None:
    device = tmp_path.stat().st_dev
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        f"22 1 0:99999 / / rw shared:1 - nfs server:/ rw\n"
        f"23 1 {os.major(device)}:{os.minor(device)} / {tmp_path} rw,noatime - {kind} source rw\n"
    )
    monkeypatch.setattr(file_events, "MOUNTS", mounts)

    assert remote_kind(tmp_path) == (kind if is_remote else "")
    if is_remote:
        with pytest.raises(OSError, match=f"type {kind}, where another machine may write"):
            open_events({tmp_path: NAMES})


def test_a_system_that_does_not_tell_its_mounts_has_local_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(file_events, "MOUNTS", tmp_path / "missing")

    assert remote_kind(tmp_path) == ""


class Event:
    """A kevent: what was asked for, or what happened."""

    def __init__(self, ident: int, _filter: int = 0, _flags: int = 0, fflags: int = 0) -> None:
        self.ident, self.fflags = ident, fflags


class Queue:
    """A kqueue that knows which descriptors are watched, and says what the test says."""

    def __init__(self) -> None:
        self.watched: list[str] = []
        self.coming: list[Event] = []
        self.refuses = False

    def fileno(self) -> int:
        return 0

    def control(self, changes: list[object] | None, _most: int, _timeout: float | None, /) -> list[Event]:
        if changes is None:
            came, self.coming = self.coming, []
            return came
        if self.refuses:
            raise OSError(errno.EMFILE, "refused")
        for change in changes:
            assert isinstance(change, Event)
            self.watched.append(str(Path(f"/proc/self/fd/{change.ident}").readlink()))
        return []

    def close(self) -> None:
        self.coming = []


def descriptor_of(path: Path) -> int:
    """Return the descriptor by which this process has `path` open."""
    for link in Path("/proc/self/fd").iterdir():
        if link.is_symlink() and link.readlink() == path:
            return int(link.name)
    raise AssertionError(f"{path} is not open")


def test_kqueue_opens_the_wal_when_it_comes_and_never_the_database(tmp_path: Path) -> None:
    database, wal, queue = tmp_path / "a.db", tmp_path / "a.db-wal", Queue()
    database.write_text("database")
    events = VnodeEvents({tmp_path: NAMES.contents}, queue=lambda: queue, event=Event)
    assert queue.watched == [str(tmp_path)]
    assert not events.read()

    wal.write_text("wal")
    queue.coming.append(Event(descriptor_of(tmp_path), fflags=0x2))
    assert events.read()
    assert queue.watched == [str(tmp_path), str(wal)]

    was = descriptor_of(wal)
    wal.unlink()
    wal.write_text("another")
    queue.coming.append(Event(was, fflags=0x1))
    assert events.read()
    assert queue.watched == [str(tmp_path), str(wal), str(wal)]
    assert not events.is_over

    queue.coming.append(Event(descriptor_of(tmp_path), fflags=0x20))
    assert events.read()
    assert events.is_over
    events.close()
    with pytest.raises(AssertionError):
        descriptor_of(tmp_path)


def test_kqueue_that_takes_no_more_leaves_nothing_open(tmp_path: Path) -> None:
    queue = Queue()
    queue.refuses = True

    with pytest.raises(OSError, match="refused"):
        VnodeEvents({tmp_path: NAMES.contents}, queue=lambda: queue, event=Event)
    with pytest.raises(AssertionError):
        descriptor_of(tmp_path)
