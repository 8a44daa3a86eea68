"""The spool on the disk: order, bounds, what is set aside, and what others left in it."""

import os
import stat
from pathlib import Path

import pytest

from membridge.errors import DiskFullError
from membridge.hooks import spool
from membridge.hooks.figures import SpoolFigures, figures
from membridge.hooks.paths import MOST_BYTES, HookPaths, hook_paths
from membridge.system import files
from tests.fixtures.hooks import leave, leave_bytes, waiting


@pytest.fixture
def paths(tmp_path: Path) -> HookPaths:
    paths = hook_paths(tmp_path / "state")
    spool.prepare(paths)
    return paths


def test_events_wait_in_the_order_in_which_they_came_whatever_their_names(paths: HookPaths) -> None:
    left = [leave(paths, "Stop") for _ in range(20)]
    for at, path in enumerate(left):
        os.utime(path, ns=(at // 2, at // 2))
    found = [one.name for one in spool.waiting(paths)]
    expected = sorted(enumerate(left), key=lambda one: (one[0] // 2, one[1].name))
    assert found == [path.name for _, path in expected]


def test_the_spool_and_its_secret_are_of_their_owner_alone(paths: HookPaths) -> None:
    for folder in (paths.spool, paths.incoming, paths.new):
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((paths.spool / "secret").stat().st_mode) == 0o600


def test_the_secret_stays(paths: HookPaths) -> None:
    assert spool.prepare(paths) == spool.prepare(paths)
    assert len(spool.prepare(paths)) == 32


def test_what_a_killed_hook_left_goes_after_a_day(paths: HookPaths) -> None:
    (paths.incoming / "old").write_bytes(b"half")
    (paths.incoming / "new").write_bytes(b"half")
    os.utime(paths.incoming / "old", (0, 0))
    spool.prepare(paths)
    assert [path.name for path in paths.incoming.iterdir()] == ["new"]


def test_what_is_not_a_file_is_not_read(paths: HookPaths, tmp_path: Path) -> None:
    os.mkfifo(paths.new / "pipe")
    (paths.new / "folder").mkdir()
    (tmp_path / "secret").write_bytes(b"secret")
    (paths.new / "link").symlink_to(tmp_path / "secret")
    assert [spool.read(paths, name) for name in ("pipe", "folder", "link")] == [b"", b"", b""]
    for name in ("pipe", "folder", "link"):
        spool.set_aside(paths, name)
    assert waiting(paths) == []
    assert (tmp_path / "secret").read_bytes() == b"secret"


def test_of_a_long_file_the_beginning_is_read(paths: HookPaths) -> None:
    left = leave_bytes(paths, b"x" * (1 << 20))
    assert len(spool.read(paths, left.name)) == MOST_BYTES


def test_damaged_files_are_kept_up_to_a_bound(paths: HookPaths) -> None:
    kept: list[Path] = []
    for number in range(spool.KEEP_DAMAGED + 5):
        left = leave_bytes(paths, b"damaged")
        os.utime(left, (number, number))
        kept.append(spool.set_aside(paths, left.name))
    assert sorted(paths.damaged.iterdir()) == sorted(kept[5:])
    assert figures(paths).damaged == spool.KEEP_DAMAGED


def test_of_too_many_events_the_oldest_are_dropped_and_counted(paths: HookPaths) -> None:
    left = [leave(paths, "Stop") for _ in range(10)]
    for at, path in enumerate(left):
        os.utime(path, ns=(at, at))
    assert spool.trim(paths, most_files=7) == 3
    assert waiting(paths) == sorted(path.name for path in left[3:])
    assert spool.trim(paths, most_files=7) == 0
    assert spool.trim(paths, most_bytes=2 * left[-1].stat().st_size) == 5
    assert waiting(paths) == sorted(path.name for path in left[8:])
    assert figures(paths) == SpoolFigures(waiting=2, damaged=0, dropped=8)


def test_a_full_disk_keeps_the_spool_from_being_counted_and_not_from_being_emptied(
    paths: HookPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> None:
        raise DiskFullError(f"no space left while writing {path}")

    monkeypatch.setattr(files, "save", full)
    left = [leave(paths, "Stop") for _ in range(3)]
    for at, path in enumerate(left):
        os.utime(path, ns=(at, at))
    assert spool.trim(paths, most_files=1) == 2
    assert waiting(paths) == [left[2].name]
    spool.remove(paths, left[2].name)
    assert waiting(paths) == []


def test_a_machine_without_hooks_has_no_figures(tmp_path: Path) -> None:
    assert figures(hook_paths(tmp_path)) == SpoolFigures()
