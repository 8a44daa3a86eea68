"""The doctor of a daemon whose Python was taken away says so, with the command that builds it anew."""

import os
import shlex
import sys
from pathlib import Path

import pytest

from membridge.node.reached import this_process
from schemas.node import Finding


def test_a_python_that_is_there_is_no_failure() -> None:
    assert this_process().finding is Finding.OK


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An environment of the installer whose Python is gone; a folder with a space in its name."""
    environment = tmp_path / "mem bridge" / "versions" / "1.0"
    environment.mkdir(parents=True)
    monkeypatch.setattr(sys, "prefix", str(environment))
    monkeypatch.setattr(sys, "executable", str(environment / "bin" / "python"))
    return environment


@pytest.mark.parametrize(
    ("role", "scope", "user", "first"),
    [
        ("node", "user", 1000, ["sh"]),
        ("all", "user", 0, ["sh"]),
        ("server", "system", 0, ["sh"]),
        ("all", "system", 1000, ["sudo", "sh"]),
    ],
)
def test_a_python_that_is_gone_comes_back_with_the_role_and_scope_of_the_receipt(
    environment: Path, monkeypatch: pytest.MonkeyPatch, role: str, scope: str, user: int, first: list[str]
) -> None:
    prefix = environment.parents[1]
    (prefix / "install.sh").touch()
    (prefix / "receipt").write_text(f"membridge-receipt\t1\t-\nscope\t{scope}\t-\nrole\t{role}\t-\n")
    monkeypatch.setattr(os, "geteuid", lambda: user)

    line = this_process()

    assert line.finding is Finding.FAIL
    assert line.detail == f"pid {os.getpid()} runs from {sys.executable}, which is gone: it cannot be started again"
    assert shlex.split(line.remedy.split("`")[1]) == [
        *first, f"{prefix}/install.sh", role, f"--{scope}", "--prefix", str(prefix),
    ]  # fmt: skip


@pytest.mark.parametrize("left", ["nothing", "no script", "a receipt of another format"])
def test_without_the_installer_the_page_is_named(environment: Path, left: str) -> None:
    prefix = environment.parents[1]
    if left != "nothing":
        other = left == "a receipt of another format"
        (prefix / "receipt").write_text(f"membridge-receipt\t{2 if other else 1}\t-\n")
        if other:
            (prefix / "install.sh").touch()

    assert this_process().remedy == "install membridge again: docs/howto/install.md"
