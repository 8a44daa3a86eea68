"""The contributors' page names files, recipes and programs that exist."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "development.md").read_text(encoding="utf-8")
FILES = sorted(set(re.findall(r"`((?:membridge|schemas|services|tests|docs)/[\w./-]+)`", PAGE)))
PROGRAMS = sorted(set(re.findall(r"python -m ([\w.]+)", PAGE)))


@pytest.mark.parametrize("file", FILES)
def test_every_file_that_is_named_exists(file: str) -> None:
    assert (ROOT / file).exists()


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_program_that_is_named_exists(program: str) -> None:
    assert program == "venv" or importlib.util.find_spec(program) is not None


def test_ten_changes_have_a_place() -> None:
    changes = re.findall(r"^\| (a new [\w -]+?) \|", PAGE, re.MULTILINE)

    assert len(set(changes)) >= 10
