"""The page of routes names each of them, and what is in a declaration is text."""

from dataclasses import replace
from html.parser import HTMLParser

from services.web.docs_page import DOCS, page
from tests.fixtures.toy_web import ADD, GET, ROUTES


class _Cells(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.cells: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        del attrs
        self.tags.add(tag)
        if tag == "td":
            self.cells.append("")

    def handle_data(self, data: str) -> None:
        if self.cells:
            self.cells[-1] += data


def test_each_route_is_a_row_with_its_fields_and_rights() -> None:
    odd = replace(GET, name="odd", path="/odd", summary="<script>alert(1)</script>")
    found = _Cells()
    found.feed(page([*ROUTES, odd], "A & B"))
    rows = [tuple(cell.strip() for cell in found.cells[at : at + 4]) for at in range(0, len(found.cells), 4)]
    assert len(rows) == len(ROUTES) + 1
    assert ("POST /notes", ADD.summary, "id, text", "operator of notes") in rows
    assert ("GET /odd", "<script>alert(1)</script>", "id", "reader of notes") in rows
    assert not found.tags & {"script", "style", "link"}
    assert DOCS.content_type.startswith("text/html")
