"""The page of messages says what the source says; every command and variable that a message names exists."""

import re

import click
import pytest

from membridge.cli.main import root
from tests.docs.messages_reference import PAGE, kinds, messages, render

SAID = sorted({text for message in messages() for text in (message.text, message.remedy)})
NAMED = sorted({line for text in SAID for line in re.findall(r"`(?:[A-Z_]+=\S+ )?(membridge [^`{][^`]*)`", text)})
VARIABLES = sorted({name for text in SAID for name in re.findall(r"\b[A-Z]+_[A-Z_]+[A-Z]\b(?!})", text)})


def test_the_page_is_the_one_that_the_source_gives() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(), "run `python -m tests.docs.messages_reference`"


def test_every_error_class_and_most_messages_are_found() -> None:
    from membridge import errors  # noqa: PLC0415 - what the page is compared with

    declared = {
        name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, Exception)
    }

    assert declared <= kinds().keys()
    assert len(messages()) > 250


@pytest.mark.parametrize("name", VARIABLES)
def test_every_variable_that_a_message_names_exists(name: str) -> None:
    page = PAGE.with_name("configuration.md").read_text(encoding="utf-8")

    assert f"`{name}`" in page


@pytest.mark.parametrize("line", NAMED)
def test_every_command_that_a_message_names_exists(line: str) -> None:
    words = line.split()[1:]
    found, context = root, click.Context(root)
    while isinstance(found, click.Group) and words and re.fullmatch(r"[a-z][a-z_-]*", words[0]):
        inner = found.get_command(context, words.pop(0))
        assert inner is not None
        found = inner
    options = {option for parameter in found.params for option in parameter.opts}

    assert found is not root
    assert {word for word in words if word.startswith("--")} - options - {"--help"} == set()
