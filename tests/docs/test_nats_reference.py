"""The NATS page says what the catalogue says."""

from tests.docs.nats_reference import PAGE, render


def test_the_page_is_the_one_that_the_catalogue_renders() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(), "run `python -m tests.docs.nats_reference`"
