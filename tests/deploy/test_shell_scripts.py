"""The shell scripts of `deploy/arm` and `deploy/openrc`: clean for shellcheck, and the small ones do what they say."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

DEPLOY = Path(__file__).parents[2] / "deploy"
SCRIPTS = [*sorted((DEPLOY / "arm").iterdir()), *sorted(file for file in (DEPLOY / "openrc").glob("membridge-*"))]
WRAPPER = DEPLOY / "arm" / "claude-cleanup-safe"
PATIENCE = 60.0


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: f"{script.parent.name}/{script.name}")
def test_shellcheck_finds_no_mistake(script: Path) -> None:
    # OpenRC reads the variables of its scripts.
    left_out = ["--exclude=SC2034"] if script.parent.name == "openrc" else []
    command = [Path(sys.executable).with_name("shellcheck"), "--shell=sh", *left_out, script]
    found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)

    assert (found.returncode, found.stdout) == (0, "")
    assert os.access(script, os.X_OK)


@pytest.mark.parametrize("folder", [".local/bin", ".local/share/membridge/current/bin"])
def test_the_cleanup_is_found_where_it_was_installed(tmp_path: Path, folder: str) -> None:
    program = tmp_path / folder / "claude-cleanup-safe"
    program.parent.mkdir(parents=True)
    program.write_text('#!/bin/sh\necho "$0" "$@"\n')
    program.chmod(0o700)

    done = subprocess.run(
        [WRAPPER, "--kill", "1"], env={"HOME": str(tmp_path)}, capture_output=True, text=True, check=True
    )

    assert done.stdout == f"{program} --kill 1\n"


def test_without_membridge_the_cleanup_says_so(tmp_path: Path) -> None:
    done = subprocess.run(
        [WRAPPER, "--kill"], env={"HOME": str(tmp_path)}, capture_output=True, text=True, check=False, timeout=PATIENCE
    )

    assert done.returncode == 69
    assert "deploy/install.sh node" in done.stderr
