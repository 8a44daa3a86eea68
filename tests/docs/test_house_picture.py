"""The pages show the house as the import contracts have it, and every package says what it is for."""

import re
from pathlib import Path

import pytest

from tests.docs.house_picture import PAGES, docstring, packages, render, written_into


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_page_shows_the_layers_of_the_contracts(page: Path) -> None:
    text = page.read_text(encoding="utf-8")

    assert f"```\n{render()}\n```\n" in text, "run `python -m tests.docs.house_picture`"
    assert written_into(text) == text


def test_every_package_outside_another_is_in_the_picture() -> None:
    drawn = set(re.findall(r"^ *(\w+)/? ", render(), re.MULTILINE))

    assert [name for name in packages() if name.count(".") < 2 and name.rpartition(".")[2] not in drawn] == []


@pytest.mark.parametrize("package", packages())
def test_every_package_says_what_it_is_for_and_what_it_must_never_do(package: str) -> None:
    said = docstring(package)

    assert len(re.findall(r"[.:](?=\s|$)", said)) >= 2, "a line on its purpose, and a sentence on what it never does"
    assert re.search(r"\b[Nn]ever\b", said)
    assert 20 <= len(said.splitlines()[0]) <= 110, "the first line is shown in docs/explain/design.md"
