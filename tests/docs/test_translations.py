"""The Ukrainian pages say to type the same as the English ones, and list the same."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAIRS = [("README.md", "README.uk.md"), ("docs/getting-started.md", "docs/uk/getting-started.md")]
CYRILLIC = re.compile("[\u0400-\u04ff]")
#: Letters that Russian has and Ukrainian has not.
RUSSIAN = re.compile("[\u0401\u042a\u042b\u042d\u0451\u044a\u044b\u044d]")


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def without_blocks(text: str) -> str:
    return re.sub(r"^```.*?^```\n", "", text, flags=re.MULTILINE | re.DOTALL)


def blocks(page: str) -> list[str]:
    return re.findall(r"^```.*?^```", read(page), re.MULTILINE | re.DOTALL)


def named_in_tables(page: str) -> list[list[str]]:
    """Return the code in the first cell of each row: commands, variables, messages."""
    cells = [re.split(r"(?<!\\)\|", line)[1] for line in read(page).splitlines() if line.startswith("| ")]
    return [found for cell in cells if (found := re.findall(r"`([^`]+)`", cell))]


def targets(page: str) -> set[Path]:
    """Return the files that a page leads to, itself and its translation aside."""
    links = re.findall(r"\]\(([^)#:]+)\)", read(page))
    found = {((ROOT / page).parent / link).resolve().relative_to(ROOT) for link in links}
    return found - {Path(name) for pair in PAIRS for name in pair}


@pytest.mark.parametrize(("english", "ukrainian"), PAIRS)
def test_what_is_typed_is_the_same(english: str, ukrainian: str) -> None:
    assert blocks(ukrainian) == blocks(english)
    assert len(blocks(english)) > 5


@pytest.mark.parametrize(("english", "ukrainian"), PAIRS)
def test_tables_name_the_same(english: str, ukrainian: str) -> None:
    assert named_in_tables(ukrainian) == named_in_tables(english)


@pytest.mark.parametrize(("english", "ukrainian"), PAIRS)
def test_what_is_set_in_code_is_the_same(english: str, ukrainian: str) -> None:
    said = [set(re.findall(r"`([^`]+)`", without_blocks(read(page)))) for page in (english, ukrainian)]

    assert said[0] == said[1]


@pytest.mark.parametrize(("english", "ukrainian"), PAIRS)
def test_sections_and_links_are_the_same(english: str, ukrainian: str) -> None:
    headings = [len(re.findall(r"^#+ ", without_blocks(read(page)), re.MULTILINE)) for page in (english, ukrainian)]

    assert headings[0] == headings[1]
    assert targets(ukrainian) == targets(english)


@pytest.mark.parametrize("page", [ukrainian for _, ukrainian in PAIRS])
def test_every_paragraph_is_in_ukrainian(page: str) -> None:
    paragraphs = [one for one in re.split(r"\n\n+", without_blocks(read(page))) if len(one.split()) > 6]

    assert [one for one in paragraphs if not CYRILLIC.search(one)] == []
    assert RUSSIAN.findall(read(page)) == []
