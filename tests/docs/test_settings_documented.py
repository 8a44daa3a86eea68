"""The reference page of the settings is the one that the table gives."""

from pathlib import Path

from membridge.settings import render_reference

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "configuration.md"


def test_the_configuration_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == render_reference(), "run `membridge config reference` into the page"
