"""What is wrong with a body is said in our words, and names the field."""

import json
import re

import pytest

from schemas.access import EnrolRequest
from schemas.leases import LeaseClaim
from schemas.proposal import QuarantineAction
from schemas.refusals import FORMS
from schemas.results import ArtifactRequest
from schemas.tasks import TaskSpec, TasksRequest
from schemas.wire import Wire, WireError, convert, decode
from tests.wire.golden import TEXTS, wire_types

TASK: dict[str, object] = {"agent_slug": "a", "prompt": "p"}
STATES = "queued, leased, running, completed, failed, dead"
ID, _, LABEL, *_ = FORMS.values()
ENROL: dict[str, object] = {"invitation": "0123456789abcdef", "secret": "0123456789abcdef", "node": "a"}


CASES: list[tuple[type[Wire], object, str | None, str]] = [
    (TaskSpec, {}, "agent_slug", "agent_slug is required"),
    (TaskSpec, [], None, "the body must be an object, not a list"),
    (TaskSpec, TASK | {"prompt": 1}, "prompt", "prompt must be text, not a whole number"),
    (TaskSpec, TASK | {"prompt": ""}, "prompt", "prompt may not be empty"),
    (TaskSpec, TASK | {"context_id": "x" * 201}, "context_id", "context_id may have at most 200 characters"),
    (TaskSpec, TASK | {"not_before": 3}, "not_before", "not_before must be text or null, not a whole number"),
    (TaskSpec, TASK | {"priority": 10}, "priority", "priority may be at most 9"),
    (TaskSpec, TASK | {"priority": 1.5}, "priority", "priority must be a whole number, not a number"),
    (TaskSpec, TASK | {"labels": ["a", "%"]}, "labels[1]", f"labels[1] must be {LABEL}"),
    (TaskSpec, TASK | {"context_hints": ["a"] * 65}, "context_hints", "context_hints may have at most 64 entries"),
    (TaskSpec, TASK | {"policy": {"budget": -1}}, "policy.budget", "policy.budget must be at least 0"),
    (TaskSpec, TASK | {"policy": None}, "policy", "policy must be an object, not null"),
    (TaskSpec, TASK | {"desired_format": "x"}, "desired_format",
     "desired_format may not be 'x': choose one of json, text"),
    (TasksRequest, {"status": "x"}, "status", f"status may not be 'x': choose one of {STATES}"),
    (ArtifactRequest, {"id": "a", "offset": True}, "offset", "offset must be a whole number, not true or false"),
    (LeaseClaim, {"lease_id": "1", "task_id": "1", "worker_id": "1"}, "lease_id", f"lease_id must be {ID}"),
    (EnrolRequest, ENROL | {"keys": {}}, "keys", "keys may not be empty"),
    (EnrolRequest, ENROL | {"keys": {"zz": "U"}}, "keys", "keys must be 16 hex digits"),
    (QuarantineAction, {"action": "eat"}, "action", "action must be list, retry or drop"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "body", "field", "message"), CASES)
def test_a_refusal_names_the_field_in_our_words(
    kind: type[Wire], body: object, field: str | None, message: str
) -> None:
    with pytest.raises(WireError) as caught:
        decode(json.dumps(body).encode(), kind)

    assert (caught.value.field, str(caught.value)) == (field, message)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"xx", "the body is not JSON: invalid character (byte 0)"),
        (b'{"a":', "the body is not complete JSON, or holds half of a surrogate pair"),
        (b'{"prompt":"\xff"}', "the body is not UTF-8"),
    ],
)
def test_a_body_that_is_no_json_is_called_that(body: bytes, message: str) -> None:
    with pytest.raises(WireError, match=f"^{re.escape(message)}$") as caught:
        decode(body, TaskSpec)

    assert caught.value.field is None


def test_plain_fields_are_refused_in_the_same_words() -> None:
    with pytest.raises(WireError, match=r"^priority may be at most 9$"):
        convert(TASK | {"priority": 11}, TaskSpec)


def test_every_pattern_of_the_wire_has_its_words() -> None:
    wire_types()

    assert {text.removesuffix(r"\Z") for text in FORMS} == set(TEXTS) - {""}
