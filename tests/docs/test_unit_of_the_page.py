"""The unit that the page on a second machine has for `membridge up` is one that systemd accepts."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.fetch import fetch

pytestmark = pytest.mark.real

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "second-machine.md"
PATIENCE = 60.0


def verified(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    unit = folder / "membridge-up.service"
    unit.write_text(text.replace("%h/.local/bin", str(Path(sys.executable).parent)))
    environ = {**os.environ, "XDG_RUNTIME_DIR": str(folder), "HOME": str(folder), "LC_ALL": "C.UTF-8"}
    command = [fetch(), "verify", "--user", "--man=no", str(unit)]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=PATIENCE)


def test_systemd_finds_no_mistake(tmp_path: Path) -> None:
    (text,) = re.findall(r"^```ini\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)

    found = verified(text, tmp_path)

    assert (found.returncode, found.stdout + found.stderr) == (0, "")
    assert "RestartWhen" in verified(text.replace("RestartSec", "RestartWhen"), tmp_path).stderr
