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


def test_a_column_that_may_go_goes_where_the_others_would_not_be_readable(
    printed: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    task, prompt = "01a224fb-7e3e-7cc9-a30c-f95ea8d04305", "Summarise the changes of this week, with the reason of each"
    columns = ("id", "status", "submitted", "?context", "~prompt")
    tables.table(columns, [(task, "queued", "4 min ago", task, prompt)], empty="")
    head, _, row = printed()
    assert head.split() == ["id", "status", "submitted", "prompt"]
    assert row.startswith(f"{task}  queued  4 min ago  Summarise the chan")
    assert len(row) <= 80
    tables.table(columns, [("7", "queued", "4 min ago", "c", "short")], empty="")
    assert printed()[0].split() == ["id", "status", "submitted", "context", "prompt"]
