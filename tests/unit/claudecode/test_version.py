"""What version of Claude Code is installed."""

from pathlib import Path

import pytest

from membridge.claudecode import version
from membridge.claudecode.version import LOADS_FOLDERS, LOADS_MODULES, Version


@pytest.mark.parametrize(
    ("text", "found"),
    [("2.1.329 (Claude Code)\n", Version(2, 1, 329)), ("v2.1.0-beta", Version(2, 1, 0)), ("2.1", None), ("", None)],
)
def test_the_version_is_read(text: str, found: Version | None) -> None:
    assert version.parse(text) == found
    assert found is None or str(found) in text


def test_versions_are_compared_by_number() -> None:
    assert Version(2, 1, 99) < LOADS_FOLDERS < LOADS_MODULES < Version(2, 1, 329) < Version(3, 0, 0)


@pytest.mark.parametrize(
    ("script", "found"),
    [("echo 2.1.9; cat", Version(2, 1, 9)), ("echo 2.1.9; exit 1", None), ("echo hello", None), (None, None)],
)
def test_a_program_is_asked(tmp_path: Path, script: str | None, found: Version | None) -> None:
    program = tmp_path / "claude"
    if script is not None:
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o700)

    assert version.installed(str(program)) == found
