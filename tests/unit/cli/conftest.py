"""What tests of printed pages share."""

from collections.abc import Callable

import pytest

from membridge.cli import tables


@pytest.fixture
def printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[], list[str]]:
    """Return what was printed, line by line, none longer than 80 columns."""
    # As on a terminal of that width, without its colours.
    monkeypatch.setattr(tables, "UNLIMITED", 80)

    def lines() -> list[str]:
        found = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
        assert all(len(line) <= 80 for line in found)
        return found

    return lines
