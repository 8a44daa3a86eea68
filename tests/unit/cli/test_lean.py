"""A command becomes the daemon without docstrings, which Python leaves out once: beside the modules, or elsewhere."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from membridge.cli import lean

MODULE = "membridge.node.main"


class BecameError(BaseException):
    """In place of another program."""


@pytest.fixture
def beside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where Python keeps what it compiles: an empty folder."""

    def became(program: str, command: list[str], environment: dict[str, str]) -> None:
        raise BecameError(program, command, environment)

    monkeypatch.setattr(os, "execve", became)
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    monkeypatch.setattr(sys, "pycache_prefix", str(tmp_path / "beside"))
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    return tmp_path / "beside"


def become(cache: Path) -> list[str]:
    with pytest.raises(BecameError) as ended:
        lean.become(MODULE, cache=cache)
    command: list[str] = ended.value.args[1]
    return command[1:]


def test_nothing_is_left_out_where_python_keeps_nothing(beside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    assert become(beside.with_name("cache")) == ["-m", MODULE]


def test_what_belongs_to_somebody_else_is_compiled_into_the_state_folder_once(
    beside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, runs = beside.with_name("cache"), list[list[str]]()
    run = subprocess.run
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # noqa: ARG005 - as the system has it
    monkeypatch.setattr(subprocess, "run", lambda command, **options: (runs.append(command), run(command, **options)))

    for _ in range(2):
        sys.pycache_prefix = str(beside)
        assert become(cache) == ["-OO", "-X", "no_debug_ranges", "-X", f"pycache_prefix={cache}", "-m", MODULE]

    assert len(runs) == 1
    assert not beside.exists()
    compiled = {f"{name}.{sys.implementation.cache_tag}.opt-2.pyc" for name in ("main", "uuid")}
    assert compiled <= {path.name for path in cache.rglob("*.pyc")}


def test_the_daemon_runs_without_docstrings(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-OO", "-c", "import membridge.node.daemon as one; print(one.run.__doc__)"],
        env={"PYTHONPYCACHEPREFIX": str(tmp_path)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "None"
