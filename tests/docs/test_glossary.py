"""One word per idea: the glossary explains each word once, and lists no word that the house has dropped."""

import re
from pathlib import Path

PAGE = (Path(__file__).parents[2] / "docs" / "glossary.md").read_text(encoding="utf-8")
WORDS = [word for cell in re.findall(r"^\| ([^*|]+?) \|", PAGE, re.MULTILINE)[1:] for word in cell.split(", ")]
#: What the design replaced by words of the field.
DROPPED = {"desk", "roster", "door", "site", "reception", "book", "board", "fleet", "herald", "keeper", "errand", "way"}


def test_a_word_is_explained_once() -> None:
    assert len(WORDS) > 40
    assert sorted(WORDS) == sorted(set(WORDS))


def test_dropped_words_are_gone() -> None:
    assert set(WORDS) & DROPPED == set()
