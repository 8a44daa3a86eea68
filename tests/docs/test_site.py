"""The check of the site finds what a browser would: dead addresses, missing headings, what is loaded from elsewhere."""

from pathlib import Path

import pytest

from tests.docs.site import faults

WHOLE = '<h1 id="top">A</h1><a href="b.html#there">b</a> <a href="https://example.org/">elsewhere</a><img src="p.svg">'


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """A site of two pages and a picture, as it should be."""
    (tmp_path / "a.html").write_text(WHOLE)
    (tmp_path / "b.html").write_text('<h2 id="there">B</h2><a href="a.html">a</a><a href="#there">here</a>')
    (tmp_path / "p.svg").write_text("<svg/>")
    return tmp_path


def test_a_whole_site_has_no_fault(built: Path) -> None:
    assert faults(built) == []


@pytest.mark.parametrize(
    ("part", "found"),
    [
        ('<a href="c.html">', "a.html links to c.html"),
        ('<a href="b.html#gone">', "a.html links to b.html#gone"),
        ('<a href="#gone">', "a.html links to #gone"),
        ('<img src="gone.svg">', "a.html links to gone.svg"),
        ('<script src="https://cdn.example.org/x.js">', "a.html loads https://cdn.example.org/x.js"),
        ('<link rel="stylesheet" href="//fonts.example.org/f.css">', "a.html loads //fonts.example.org/f.css"),
    ],
)
def test_each_fault_is_found(built: Path, part: str, found: str) -> None:
    (built / "a.html").write_text(WHOLE + part)

    assert [fault for fault in faults(built) if fault.startswith(found)] == faults(built) != []
