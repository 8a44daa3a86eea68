"""The old tool's short names."""

import sys
from collections.abc import Callable

import pytest

from membridge.cli import aliases


@pytest.mark.parametrize(
    ("alias", "command"),
    [
        (aliases.cm_push, "push"),
        (aliases.cm_pull, "pull"),
        (aliases.cm_status, "status"),
        (aliases.cm_doctor, "doctor"),
    ],
)
def test_an_alias_is_the_command_with_its_arguments(
    alias: Callable[[], int], command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [f"cm-{command}", "--help"])

    assert alias() == 0
    assert capsys.readouterr().out.startswith(f"Usage: membridge {command} ")
