"""A problem is logged when it is new, and while it lasts only at debug level."""

import io
import json
from collections.abc import Iterator

import pytest

from membridge.errors import UnavailableError
from membridge.system import logging
from membridge.system.logging import get_logger
from membridge.system.problem import Problem


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    logging.setup(form="json", level="debug", stream=stream)
    yield stream
    logging.setup()


def said(lines: io.StringIO) -> list[tuple[str, str]]:
    """Return level and reason of each line since the last call."""
    found = [json.loads(line) for line in lines.getvalue().splitlines()]
    lines.seek(0)
    lines.truncate()
    assert {one["event"] for one in found} <= {"it failed"}
    return [(one["level"], one["reason"]) for one in found]


@pytest.mark.parametrize("level", ["warning", "info"])
def test_a_reason_is_logged_once_until_it_changes_or_is_over(lines: io.StringIO, level: str) -> None:
    problem = Problem(get_logger("membridge.test"), "it failed", level=level)
    for reason in ("a", "a", "b", "a"):
        problem.tell(reason)
    assert said(lines) == [(level, "a"), ("debug", "a"), (level, "b"), (level, "a")]
    assert problem.reason == "a"

    assert problem.over()
    assert (problem.reason, problem.over()) == ("", False)
    problem.tell("a")
    assert said(lines) == [(level, "a")]


def test_an_expected_error_has_its_remedy_and_another_one_its_traceback(lines: io.StringIO) -> None:
    problem = Problem(get_logger("membridge.test"), "it failed")
    problem.failed(UnavailableError("down", remedy="start it"), name="x")
    problem.failed(ValueError("odd"), name="x")
    first, second = (json.loads(line) for line in lines.getvalue().splitlines())
    assert (first["reason"], first["remedy"], first["name"]) == ("down", "start it", "x")
    assert "exception" not in first
    assert (second["reason"], second["name"]) == ("ValueError: odd", "x")
    assert "ValueError: odd" in second["exception"]
