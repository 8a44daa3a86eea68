"""The script itself: plain POSIX sh."""

import subprocess
import sys
from pathlib import Path

from tests.install.machine import SCRIPT


def test_shellcheck_finds_nothing() -> None:
    shellcheck = Path(sys.executable).with_name("shellcheck")
    command = [shellcheck, "--shell=sh", "--norc", "--severity=style", SCRIPT]

    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert (ran.returncode, ran.stdout) == (0, "")


def test_it_ends_with_the_call_of_its_main_function() -> None:
    assert SCRIPT.read_text("utf-8").splitlines()[-1] == 'main "$@"; exit'
