"""What may come from outside has bounds: every number, every text, every list, and no text that nothing can keep."""

import re
from collections.abc import Iterator

import msgspec
import pytest
from msgspec import inspect

from schemas import subjects
from schemas.leases import Accepted
from schemas.node import Empty, NodePresence
from schemas.snapshot import PushRequest
from schemas.subjects import Operation
from schemas.tasks import TaskSpec
from schemas.wire import Wire, WireError, decode, decode_request, storable
from schemas.workers import WorkerStatusReply

OPERATIONS: list[Operation[Wire, Wire]] = [one for one in vars(subjects).values() if isinstance(one, Operation)]
#: Requests, and what workers and nodes say of themselves.
KINDS = {one.request for one in OPERATIONS} | {NodePresence, WorkerStatusReply, Accepted}


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
        case inspect.ListType() | inspect.DictType():
            return info.max_length is not None
        case _:
            return isinstance(info, inspect.BoolType | inspect.NoneType | inspect.EnumType)


@pytest.mark.parametrize("kind", sorted(KINDS, key=str), ids=str)
def test_every_number_text_and_list_of_a_request_has_a_bound(kind: type[Wire]) -> None:
    whole = leaves(inspect.type_info(kind), kind.__name__)
    assert [path for path, info in whole if not is_bounded(info)] == []


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
