"""One daemon of a kind per state folder, and who is alive."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from membridge.errors import AlreadyRunningError
from membridge.system.pidfile import is_alive, only_one


def test_a_second_one_is_told_where_the_first_runs(tmp_path: Path) -> None:
    with only_one(tmp_path, "up"):
        with pytest.raises(AlreadyRunningError) as refused, only_one(tmp_path, "up"):
            pass
        assert f"pid {os.getpid()}" in refused.value.message
        assert str(tmp_path) in refused.value.message
        with only_one(tmp_path, "node"):
            pass


def test_the_place_is_free_again_afterwards(tmp_path: Path) -> None:
    for _ in range(2):
        with only_one(tmp_path, "up"):
            pass
    (tmp_path / "up.pid").write_text("123\n", encoding="ascii")
    with only_one(tmp_path, "up"):
        assert (tmp_path / "up.pid").read_text(encoding="ascii") == f"{os.getpid()}\n"


def test_a_zombie_is_not_alive() -> None:
    assert is_alive(os.getpid())
    ended = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
    assert not is_alive(ended.pid)
    ended.wait()
    assert not is_alive(ended.pid)
