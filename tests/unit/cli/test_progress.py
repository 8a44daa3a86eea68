"""Where progress shows."""

import sys

import pytest

from membridge.cli import progress


def test_plain_progress_is_a_line_for_each_step(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.shown("push", quiet=False) as meter:
        meter("copy", 0, 0)
        meter("copy", 1, 2)
        meter("upload", 1, 2)

    assert capsys.readouterr().err.splitlines() == ["push: copy", "push: upload 50 %"]


def test_quiet_shows_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.shown("push", quiet=True) as meter:
        meter("copy", 1, 2)

    found = capsys.readouterr()
    assert (found.out, found.err) == ("", "")


def test_a_terminal_gets_a_bar_that_goes_away(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)

    with progress.shown("push", quiet=False) as meter:
        meter("copy", 0, 0)
        meter("upload", 1, 2)

    err = capsys.readouterr().err
    assert "push: upload" in err
    assert "50%" in err
