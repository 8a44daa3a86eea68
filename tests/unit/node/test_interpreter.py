"""The doctor of a daemon whose Python was taken away says so, with the command that builds it anew."""

import os
import sys
from pathlib import Path

import pytest

from membridge.node.reached import this_process
from schemas.node import Finding


def test_a_python_that_is_there_is_no_failure() -> None:
    assert this_process().finding is Finding.OK


@pytest.mark.parametrize("installed", [True, False])
def test_a_python_that_is_gone_is_a_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, installed: bool) -> None:
    environment = tmp_path / "versions" / "1.0"
    environment.mkdir(parents=True)
    if installed:
        (tmp_path / "install.sh").touch()
    monkeypatch.setattr(sys, "prefix", str(environment))
    monkeypatch.setattr(sys, "executable", str(environment / "bin" / "python"))

    line = this_process()

    assert line.finding is Finding.FAIL
    assert line.detail == f"pid {os.getpid()} runs from {sys.executable}, which is gone: it cannot be started again"
    assert (f"`sh {tmp_path}/install.sh node --prefix {tmp_path}`" in line.remedy) == installed
