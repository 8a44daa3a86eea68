"""The folder where sessions ask is in memory where there is one, this user's alone, and found through one link."""

import os
import shutil
import stat
from pathlib import Path

import pytest

from membridge.hooks import run_folder
from membridge.hooks.paths import HookPaths, hook_paths
from membridge.hooks.run_folder import close_run_folder, open_run_folder


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HookPaths:
    monkeypatch.setattr(run_folder, "SHARED_MEMORY", tmp_path / "shm")
    return hook_paths(tmp_path / "state")


@pytest.mark.parametrize("variable", ["RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR"])
def test_it_is_in_the_users_folder_in_memory_and_the_link_leads_there(
    paths: HookPaths, tmp_path: Path, variable: str
) -> None:
    where = open_run_folder(paths, {variable: str(tmp_path)})
    assert where.parent == tmp_path
    assert paths.run.resolve() == where
    assert stat.S_IMODE(where.stat().st_mode) == 0o700
    assert open_run_folder(paths, {variable: str(tmp_path)}) == where
    close_run_folder(paths, where)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["state"]
    assert list(paths.run.parent.iterdir()) == []


def test_two_state_folders_of_one_user_have_a_folder_each(paths: HookPaths, tmp_path: Path) -> None:
    other = hook_paths(tmp_path / "other")
    environ = {"XDG_RUNTIME_DIR": str(tmp_path)}
    assert open_run_folder(paths, environ) != open_run_folder(other, environ)


def test_without_a_folder_in_memory_it_is_in_the_state_folder(
    paths: HookPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000)
    assert open_run_folder(paths, {"XDG_RUNTIME_DIR": "/nowhere"}) == paths.run
    assert not paths.run.is_symlink()
    close_run_folder(paths, paths.run)
    assert not paths.run.exists()


def test_a_link_to_a_folder_that_a_reboot_removed_is_set_anew(paths: HookPaths, tmp_path: Path) -> None:
    paths.run.parent.mkdir()
    paths.run.symlink_to(tmp_path / "gone")
    where = open_run_folder(paths, {"XDG_RUNTIME_DIR": str(tmp_path)})
    assert paths.run.resolve() == where


def test_a_folder_that_another_user_could_have_made_is_not_used(paths: HookPaths, tmp_path: Path) -> None:
    environ = {"XDG_RUNTIME_DIR": str(tmp_path / "memory")}
    (tmp_path / "memory").mkdir()
    first = open_run_folder(paths, environ)
    first.chmod(0o777)
    assert open_run_folder(paths, environ) != first
    shutil.rmtree(first)
    (tmp_path / "theirs").mkdir()
    first.symlink_to(tmp_path / "theirs")
    assert open_run_folder(paths, environ) != first


def test_folders_of_daemons_that_were_killed_days_ago_go(paths: HookPaths, tmp_path: Path) -> None:
    shared = tmp_path / "shm"
    shared.mkdir()
    made = [shared / f"membridge-{os.getuid()}-{name}" for name in ("dead", "alive", "starting", "older")]
    for folder in made:
        folder.mkdir()
    for folder, beat in ((made[0], 1_000), (made[1], None)):
        (folder / paths.heartbeat.name).touch()
        os.utime(folder, (1_000, 1_000))
        if beat:
            os.utime(folder / paths.heartbeat.name, (beat, beat))
    os.utime(made[3], (1_000, 1_000))
    where = open_run_folder(paths, {"XDG_RUNTIME_DIR": str(tmp_path)})
    assert sorted(shared.iterdir()) == sorted(made[1:3])
    assert where.parent == tmp_path
