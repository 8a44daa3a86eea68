"""The document of streams: an item as the type of an event, and how to resume."""

from services.web.openapi import document, portable
from tests.fixtures.web_access import EVENTS, SOCKET


def test_a_stream_is_described_with_its_items_and_how_it_is_resumed() -> None:
    shown = document([EVENTS, SOCKET], "Toy")
    events, socket = shown["paths"]["/events"]["get"], shown["paths"]["/socket"]["get"]
    note = {"$ref": "#/components/schemas/Note"}

    assert events["responses"]["200"]["content"] == {"text/event-stream": {"schema": note}}
    assert socket["responses"]["101"]["x-item"] == note
    for one in (events, socket):
        assert [(each["name"], each["in"]) for each in one["parameters"]] == [
            ("Last-Event-ID", "header"),
            ("last_event_id", "query"),
        ]


def test_every_reference_of_the_document_leads_somewhere() -> None:
    shown = document([EVENTS, SOCKET], "Toy")
    found: list[str] = []

    def walk(part: object) -> None:
        if isinstance(part, dict):
            found.extend(value for key, value in part.items() if key == "$ref")
            for value in part.values():
                walk(value)
        elif isinstance(part, list):
            for value in part:
                walk(value)

    walk(shown)
    assert found
    schemas, responses = (shown["components"][kind].keys() for kind in ("schemas", "responses"))
    assert {name.removeprefix("#/components/") for name in found} <= {
        *(f"schemas/{name}" for name in schemas), *(f"responses/{name}" for name in responses),
    }  # fmt: skip


def test_patterns_are_those_of_json_schema() -> None:
    end = {"pattern": r"^[a-z]+\Z", "title": r"\Z"}

    found = portable({"properties": {"pattern": end, "several": {"anyOf": [end, {"type": "null"}]}}})

    mended = {"pattern": "^[a-z]+$", "title": r"\Z"}
    assert found == {"properties": {"pattern": mended, "several": {"anyOf": [mended, {"type": "null"}]}}}
