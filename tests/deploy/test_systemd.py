"""The systemd units, as systemd itself reads them: no mistake, little exposure, limits for a small board."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.fetch import fetch

pytestmark = pytest.mark.real

DEPLOY = Path(__file__).parents[2] / "deploy" / "systemd"
UNITS = sorted(DEPLOY.glob("*/*.service"))
SYSTEM = sorted((DEPLOY / "system").glob("*.service"))
#: Largest exposure of a system unit, as `systemd-analyze security` counts: 0 is none, 10 a process without any limit.
EXPOSURE = 1.5
PATIENCE = 60.0


def name_of(file: Path) -> str:
    return f"{file.parent.name}/{file.name}"


def analyze(runtime: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "XDG_RUNTIME_DIR": str(runtime), "HOME": str(runtime), "LC_ALL": "C.UTF-8"}
    command = [fetch(), *map(str, arguments)]
    return subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=PATIENCE)


@pytest.mark.parametrize("kind", ["user", "system"])
def test_systemd_finds_no_mistake_in_what_the_command_writes(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "units"
    names = [file.name for file in sorted((DEPLOY / kind).iterdir())]
    programs = Path(sys.executable).parent
    written = subprocess.run(
        [programs / "membridge", "units", *names, "--for", kind, "--into", folder, "--bin", programs],
        env={**os.environ, "HOME": str(tmp_path)}, capture_output=True, text=True, check=False, timeout=PATIENCE,
    )  # fmt: skip
    assert written.returncode == 0, written.stderr
    assert sorted(file.name for file in folder.iterdir()) == names

    found = analyze(tmp_path, "verify", f"--{kind}", "--man=no", *folder.iterdir())

    assert (found.returncode, found.stdout + found.stderr) == (0, "")


def test_systemd_finds_a_mistake(tmp_path: Path) -> None:
    unit = tmp_path / "membridge-node.service"
    unit.write_text((DEPLOY / "user" / unit.name).read_text().replace("WatchdogSec=60s", "WatchDog=60s"))

    assert "WatchDog" in analyze(tmp_path, "verify", "--user", unit).stderr


@pytest.mark.parametrize("file", SYSTEM, ids=name_of)
def test_a_system_unit_is_hardly_exposed(tmp_path: Path, file: Path) -> None:
    unit = tmp_path / file.name.replace("@", "@alice")
    unit.write_text(file.read_text())

    found = analyze(tmp_path, "security", "--offline=yes", "--no-pager", unit)

    level = re.search(r"Overall exposure level for \S+: ([\d.]+)", found.stdout)
    assert level, found.stderr
    assert float(level[1]) <= EXPOSURE
