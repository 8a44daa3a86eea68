"""The verdict of the old doctor, and long output."""

import sys
from pathlib import Path

import pytest

from membridge.compat import sync_wrapper
from membridge.compat.sqlite_minio_sync import verdict
from schemas.node import Check, Finding


def check(name: str, finding: Finding) -> Check:
    return Check(name=name, finding=finding, detail="")


@pytest.mark.parametrize(
    ("checks", "said"),
    [
        ([check("NATS", Finding.OK), check("lock", Finding.SKIPPED)], "OK — READY FOR PRODUCTION"),
        ([check("hooks", Finding.FAIL)], "DEGRADED — hooks"),
        ([check("disk", Finding.WARN)], "DEGRADED — disk"),
        ([check("hooks", Finding.WARN), check("object store", Finding.FAIL)], "ERROR"),
    ],
)
def test_the_verdict_is_one_of_three(checks: list[Check], said: str) -> None:
    assert verdict(checks) == said


def test_long_output_is_cut_to_its_last_lines(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\nseq 1 300\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))

    lines = (sync_wrapper.push_project("p")["stdout"] or "").splitlines()
    assert lines[0] == "... (100 lines truncated)"
    assert (lines[1], lines[-1], len(lines)) == ("101", "300", 201)


def test_a_program_that_cannot_start_is_a_result_and_no_exception(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "gone"))

    done = sync_wrapper.doctor_project("p")
    assert (done["ok"], done["returncode"], done["stdout"]) == (False, -1, None)
    assert done["detail"].startswith("doctor error: ")
