"""Field names of log lines are declared once."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from membridge.system.logging import FIELDS

ROOT = Path(__file__).parents[3]
LEVELS = {"debug", "info", "warning", "error", "exception", "bound"}


def fields_used(source: str) -> Iterator[str]:
    """Yield the field names of each call such as `log.info("...", field=...)` and `logging.bound(field=...)`."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id="log" | "logging"), attr=name)) if name in LEVELS:
                yield from (keyword.arg for keyword in node.keywords if keyword.arg and keyword.arg != "exc_info")


@pytest.mark.parametrize("package", ["membridge", "services"])
def test_every_field_that_is_logged_is_declared(package: str) -> None:
    used = {
        (str(path.relative_to(ROOT)), field)
        for path in (ROOT / package).rglob("*.py")
        for field in fields_used(path.read_text(encoding="utf-8"))
    }

    assert {(path, field) for path, field in used if field not in FIELDS} == set()


def test_the_search_finds_fields() -> None:
    source = "log.info('x', seq=1)\nlogging.bound(request_id=2)\nother.info(y=1)\nlog.exception('z', exc_info=True)"

    assert list(fields_used(source)) == ["seq", "request_id"]


def test_declared_fields_have_a_meaning_and_stand_in_order() -> None:
    assert list(FIELDS) == sorted(FIELDS)
    assert all(FIELDS.values())
