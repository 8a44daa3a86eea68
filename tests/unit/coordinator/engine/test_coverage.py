"""This folder alone runs every line and every branch of the engine."""

import json
import subprocess
import sys
from pathlib import Path

ROOT, HERE = Path(__file__).parents[4], Path(__file__).parent
PACKAGE = "services.coordinator.engine"
#: This test itself, and searches: what they happen to run is no case.
NOT_THERE = ["test_coverage.py", "test_state.py::test_whatever_happened_is_taken_back", "test_engine_machine.py"]


def test_every_line_and_every_branch_of_the_engine_runs_here(tmp_path: Path) -> None:
    data, report = tmp_path / "coverage", tmp_path / "coverage.json"
    coverage = [sys.executable, "-m", "coverage"]
    run = [
        "run",
        f"--data-file={data}",
        "--branch",
        f"--source={PACKAGE}",
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
    ]
    run += ["-p", "no:xdist", str(HERE.relative_to(ROOT))]
    run += [f"--deselect={HERE.relative_to(ROOT)}/{name}" for name in NOT_THERE]
    ran = subprocess.run([*coverage, *run], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout
    write = ["json", f"--data-file={data}", "-q", "-o", str(report)]
    subprocess.run([*coverage, *write], cwd=ROOT, check=True)
    found = json.loads(report.read_text())
    missed = {
        name: (file["missing_lines"], file["missing_branches"])
        for name, file in found["files"].items()
        if file["missing_lines"] or file["missing_branches"]
    }
    assert missed == {}
    assert found["totals"]["num_branches"] > 0
