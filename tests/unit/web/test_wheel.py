"""What pip installs: every file of the console is in the wheel."""

import subprocess
import sys
import zipfile
from pathlib import Path

from services.gateway.service import CONSOLE

ROOT = Path(__file__).parents[3]


def test_the_wheel_has_every_file_of_the_console(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=100)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        found = {
            name: archive.read(name) for name in archive.namelist() if name.startswith("services/gateway/console/")
        }
    wanted = {file.relative_to(ROOT).as_posix(): file.read_bytes() for file in CONSOLE.rglob("*") if file.is_file()}
    assert found == wanted
    assert len(wanted) > 30
