"""One daemon of a kind per state folder."""

import os
from pathlib import Path

import pytest

from membridge.errors import AlreadyRunningError
from membridge.system.pidfile import only_one


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
