"""What aiohttp gets in place of large modules does what it needs of them, and leaves the real ones to others."""

import html
import pickle

import pytest

from services import web


@pytest.mark.parametrize("text", ["", "a & b", "<a href=\"x\">'y'</a>", "&amp;&#x27;", "ü🙂"])
def test_text_is_escaped_as_the_original_does(text: str) -> None:
    escape = vars(web)["_escaped"]
    assert escape(text) == html.escape(text)
    assert escape(text, quote=False) == html.escape(text, quote=False)


def test_others_get_the_real_modules() -> None:
    assert html.unescape("&eacute;") == "é"
    assert pickle.dumps([1]).endswith(b".")
