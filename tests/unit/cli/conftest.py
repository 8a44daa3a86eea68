"""What tests of printed pages share."""

from collections.abc import Callable

import pytest


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[], list[str]]:
    """Return what was printed, line by line, none longer than 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")

    def lines() -> list[str]:
        found = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
        assert all(len(line) <= 80 for line in found)
        return found

    return lines
