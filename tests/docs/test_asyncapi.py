"""The AsyncAPI document is what the catalogue says, and what AsyncAPI 3 allows."""

import json
import re
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from schemas import subjects
from schemas.subjects import Operation
from tests.docs.asyncapi_reference import PAGE, PUBLISHED, document, render
from tests.docs.nats_reference import owned, sections

#: The JSON Schema that AsyncAPI publishes; docs/dependencies.md says which file it is.
RULES = json.loads((Path(__file__).parents[1] / "data" / "asyncapi-3.0.0.json").read_text(encoding="utf-8"))
DOCUMENT = document()
ASKED = [operation for _, operations in sections() for operation in operations]


def complaints(document: Any) -> list[str]:
    """Return what AsyncAPI says against a document."""
    import jsonschema_rs  # noqa: PLC0415 - the other tests of this module do not need it

    rules = jsonschema_rs.Draft7Validator(RULES)
    return [f"{error.instance_path}: {error.message}" for error in rules.iter_errors(document)]


def at(reference: str) -> Any:
    """Return what a reference within the document leads to."""
    found: Any = DOCUMENT
    for name in reference.removeprefix("#/").split("/"):
        found = found[name]
    return found


def references(part: Any) -> set[str]:
    if isinstance(part, dict):
        own = {part["$ref"]} if isinstance(part.get("$ref"), str) else set()
        return own.union(*(references(value) for value in part.values()))
    return set().union(*map(references, part)) if isinstance(part, list) else set()


def test_the_file_is_the_one_that_the_catalogue_renders() -> None:
    assert PAGE.read_text(encoding="utf-8") == render(), "run `just pages`"


def test_asyncapi_accepts_it() -> None:
    assert complaints(DOCUMENT) == []


@pytest.mark.parametrize(
    "spoil",
    [
        lambda broken: broken.pop("info"),
        lambda broken: broken["operations"]["events"].update(action="shout"),
        lambda broken: broken["channels"]["events"].update(address=7),
        lambda broken: broken["components"]["schemas"]["Head"].update(type="record"),
    ],
    ids=["no info", "no such action", "an address that is a number", "no such type"],
)
def test_asyncapi_refuses_a_broken_one(spoil: Any) -> None:
    broken = deepcopy(DOCUMENT)
    spoil(broken)

    assert complaints(broken) != []


def test_every_reference_leads_somewhere() -> None:
    named = references(DOCUMENT)

    assert len(named) > 200
    assert [at(reference) for reference in named if not at(reference)] == []


@pytest.mark.parametrize("operation", ASKED, ids=lambda operation: operation.subject)
def test_every_request_is_in_it(operation: Operation[Any, Any]) -> None:
    found = [
        one for one in DOCUMENT["operations"].values() if at(one["channel"]["$ref"])["address"] == operation.subject
    ]

    assert [one["action"] for one in found] == ["receive"]
    sent, answered = at(found[0]["messages"][0]["$ref"]), at(found[0]["reply"]["messages"][0]["$ref"])
    assert sent == {"$ref": f"#/components/messages/{operation.request.__name__}"}
    assert answered == {"$ref": f"#/components/messages/{operation.reply.__name__}"}


def test_every_subject_that_a_stream_keeps_and_every_bucket_is_in_it() -> None:
    published = {subjects.wildcard(subject) for _, subject, _, _ in PUBLISHED}
    kept = {subject for _, streams, _ in owned() for stream in streams for subject in stream.subjects}

    assert kept <= published
    assert set(DOCUMENT["x-buckets"]) == {bucket.name for _, _, buckets in owned() for bucket in buckets}


def test_every_token_of_a_subject_is_explained() -> None:
    addresses = [channel["address"] or "" for channel in DOCUMENT["channels"].values()]

    for channel, address in zip(DOCUMENT["channels"].values(), addresses, strict=True):
        assert set(channel.get("parameters", {})) == set(re.findall(r"{(\w+)}", address))
