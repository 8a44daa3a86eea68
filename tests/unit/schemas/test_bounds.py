"""What may come from outside has bounds: every number, every text, every list, and no text that nothing can keep."""

import json
import re
from collections.abc import Iterator
from typing import cast

import msgspec
import pytest
from msgspec import inspect

from membridge.bus.bulk import MOST_REQUEST
from membridge.bus.inbox import MOST
from membridge.bus.rpc import MAX_REPLY
from membridge.commits.proposal_bundles import MAX_BUNDLE_BYTES
from membridge.objectstore.protocol import MAX_GET_BYTES
from schemas.fields import MANY, MOST_TEXT
from schemas.leases import Accepted
from schemas.node import Empty
from schemas.proposal import ProposedRow
from schemas.snapshot import PushRequest
from schemas.tasks import TaskSpec
from schemas.wire import MAX_BODY_BYTES, Wire, WireError, decode, decode_request, storable
from tests.wire.golden import example, wire_types

#: Every struct of schemas/: what is sent, what is stored, what is published.
KINDS = {name: kind for name, kind in wire_types().items() if kind.__module__.startswith("schemas.")}


def leaves(info: inspect.Type, path: str) -> Iterator[tuple[str, inspect.Type]]:
    """Yield the path and type of all that `info` is made of, but for structs and unions."""
    match info:
        case inspect.Metadata():
            yield from leaves(info.type, path)
        case inspect.StructType():
            for field in info.fields:
                yield from leaves(field.type, f"{path}.{field.name}")
        case inspect.UnionType():
            for one in info.types:
                yield from leaves(one, path)
        case _:
            yield path, info
            for name in ("item_type", "key_type", "value_type"):
                if hasattr(info, name):
                    yield from leaves(getattr(info, name), path)


def is_bounded(info: inspect.Type) -> bool:
    match info:
        case inspect.IntType():
            return (info.le or info.lt) is not None and (info.ge is not None or info.gt is not None)
        case inspect.StrType():
            return info.max_length is not None or info.pattern is not None
        case inspect.BytesType():
            return info.max_length is not None
        case inspect.ListType() | inspect.DictType():
            return info.max_length is not None
        case _:
            return isinstance(info, inspect.BoolType | inspect.NoneType | inspect.EnumType | inspect.FloatType)


def members(info: inspect.Type) -> Iterator[inspect.Type]:
    """Yield what a field of type `info` may hold, without what is in it."""
    match info:
        case inspect.Metadata():
            yield from members(info.type)
        case inspect.UnionType():
            for one in info.types:
                yield from members(one)
        case _:
            yield info


def over_its_bound(info: inspect.Type, given: object) -> Iterator[object]:
    """Yield values just over the bounds of a field like `given`; what would be megabytes is left out."""
    match info:
        case inspect.IntType(le=int(most), ge=int(least)):
            yield from (least - 1, most + 1)
        case inspect.StrType(max_length=int(most)) if most <= MAX_BODY_BYTES:
            yield "x" * (most + 1)
        case inspect.StrType(pattern=str()):
            yield "no such form."
        case inspect.ListType(max_length=int(most)) if most <= MAX_BODY_BYTES:
            yield cast("list[object]", given) * (most + 1)
        case _:
            pass


@pytest.mark.parametrize("name", KINDS)
def test_every_integer_text_list_and_map_has_a_bound(name: str) -> None:
    whole = leaves(inspect.type_info(KINDS[name]), name)
    assert [path for path, info in whole if not is_bounded(info)] == []


@pytest.mark.parametrize("name", [name for name, kind in KINDS.items() if issubclass(kind, Wire)])
def test_what_is_over_a_bound_is_refused_by_the_name_of_its_field(name: str) -> None:
    kind = KINDS[name]
    fields = json.loads(example(kind))
    wrong = [
        (field.name, value)
        for field in msgspec.structs.fields(kind)
        for member in members(inspect.type_info(field.type))
        for value in over_its_bound(member, fields[field.name])
    ]

    for field, value in wrong:
        with pytest.raises(WireError) as caught:
            decode(json.dumps(fields | {field: value}).encode(), cast("type[Wire]", kind), limit=MAX_REPLY)

        assert caught.value.field == field
        assert str(caught.value).startswith(f"{field} m")


@pytest.mark.parametrize("largest", [MAX_REPLY, MOST, MOST_REQUEST, MAX_GET_BYTES, MAX_BUNDLE_BYTES])
def test_no_body_that_is_read_holds_a_longer_text_or_list_than_the_widest_bound(largest: int) -> None:
    assert largest <= MOST_TEXT
    assert MANY.max_length is not None
    assert len(b"[0]") + (MANY.max_length - 1) * len(b",0") >= MOST_TEXT


@pytest.mark.parametrize("value", [-(2**63), 2**63 - 1, 1e308, "x" * 100_000, "\0", "", None])
def test_a_row_travels_with_every_value_of_sqlite(value: object) -> None:
    body = msgspec.json.encode({"table": "observations", "row": {"c": value}, "local_id": -(2**63)})

    assert decode(body, ProposedRow).row == {"c": value}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prompt", rb'"a\u0000b"'),
        ("prompt", rb'"\uD83Dx"'),
        ("prompt.x", rb'{"x":"\udfff"}'),
        ("context_hints[1]", rb'["x","\udc00"]'),
        ("policy.budget", b'{"budget":9223372036854775808}'),
        ("priority", b"9.2e18"),
    ],
)
def test_what_no_database_can_keep_is_refused_by_the_name_of_its_field(field: str, value: bytes) -> None:
    name = re.split(r"[.\[]", field)[0].encode()
    body = b'{"context_id":"c","agent_slug":"a","prompt":"p","' + name + b'":' + value + b"}"

    with pytest.raises(WireError) as caught:
        decode_request(body, TaskSpec)

    assert caught.value.field == field
    assert field in str(caught.value)


def test_text_that_looks_like_an_escape_is_text() -> None:
    body = rb'{"context_id":"c","agent_slug":"a","prompt":"\\u0000 \\ud800 \ud83d\ude00"}'

    assert decode_request(body, TaskSpec).prompt == r"\u0000 \ud800 " + "\N{GRINNING FACE}"


def test_what_nobody_reads_may_hold_anything() -> None:
    assert decode_request(b'{"unknown":"\\u0000"}', PushRequest) == PushRequest()
    assert decode_request(b"", Empty) == Empty()
    assert decode(b'{"accepted":true,"reason":"\\u0000"}', Accepted).reason == "\0"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("plain ünïcode \N{GRINNING FACE}", "plain ünïcode \N{GRINNING FACE}"),
        ("a\0b", "a\ufffdb"),
        ("a\ud83db", "a\ufffdb"),
        ("\ude00", "\ufffd"),
        ("", ""),
    ],
)
def test_what_is_made_storable_differs_in_what_nothing_can_keep_alone(text: str, kept: str) -> None:
    assert storable(text) == kept
    assert decode_request(msgspec.json.encode({"reason": kept, "accepted": True}), Accepted).reason == kept
