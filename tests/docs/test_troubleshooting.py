"""The messages that the troubleshooting page explains are ones that Membridge reports, each with steps."""

import re
from pathlib import Path

import pytest

from tests.docs.messages_reference import messages

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "howto" / "troubleshooting.md").read_text(encoding="utf-8")
ENTRIES = dict(re.findall(r"^### (`[^\n]+`)\n\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL))


def likeness(text: str) -> str:
    """Return a message with each value, in braces or as `…`, as one sign, and without quotes of code."""
    return re.sub(r"{[^}]*}|…", "…", text).strip("` ").replace("`", "")


#: What the installer refuses, with its variables as values.
REFUSED = re.findall(r'refuse "((?:[^"\\]|\\.)*)"', (ROOT / "deploy" / "install.sh").read_text(encoding="utf-8"))
REPORTED = {likeness(message.text) for message in messages()} | {
    likeness(re.sub(r"\$\w+", "…", text)) for text in REFUSED
}


def test_the_page_has_what_people_meet() -> None:
    assert len(ENTRIES) >= 30


@pytest.mark.parametrize("heading", ENTRIES)
def test_a_message_that_is_explained_is_reported(heading: str) -> None:
    shown = likeness(heading)

    assert any(shown in reported for reported in REPORTED), shown


@pytest.mark.parametrize("heading", ENTRIES)
def test_an_explanation_says_what_to_do(heading: str) -> None:
    assert len(ENTRIES[heading].split()) >= 12
