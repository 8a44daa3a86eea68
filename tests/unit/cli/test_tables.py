"""Tables on a terminal fit it; for a program or a file nothing is cut."""

from collections.abc import Callable

import pytest

from membridge.cli import tables

COLUMNS = ("id", "~name", "*about", "path")
LONG = ("7", "a-name-" * 20, "words that " * 30, "/a/path" * 20)


def test_a_piped_table_is_not_cut(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", "80")

    tables.table(COLUMNS, [LONG], empty="")
    tables.facts([("path", LONG[3]), ("about", LONG[2])])
    tables.line(LONG[2])

    head, rule, row, *facts, line = capsys.readouterr().out.splitlines()
    assert row.split()[0] == "7"
    assert all(text.strip() in row for text in LONG)
    assert [fact.split(maxsplit=1)[1].strip() for fact in facts] == [LONG[3], LONG[2].strip()]
    assert line.strip() == LONG[2].strip()
    assert (head.split(), set(rule.strip())) == (["id", "name", "about", "path"], {"\u2500"})


def test_on_a_terminal_it_is_as_wide_as_that(printed: Callable[[], list[str]]) -> None:
    tables.table(COLUMNS[:3], [LONG[:3]], empty="")

    assert len(printed()) > 3
