"""Callers that a service admits beside those with an issued key: by a key from its settings, or without one."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager

import msgspec
import pytest

from membridge.aio.deadline import Deadline
from membridge.bus.connection import Bus
from membridge.bus.kv import open_bucket
from schemas import buckets
from schemas.web import Role
from services.web.auth import Admission, HeaderKey
from services.web.identity import ANYBODY, Identity
from services.web.routes import AnyRoute
from services.web.service import admitting
from tests.fixtures.toy_web import GET, LIST, PUT, Toy, ask, toy_served

READER = Identity("reader_key", "reader", Role.READER, frozenset({"notes"}), issued=False)
WRITER = Identity("writer_key", "writer", Role.OPERATOR, frozenset({"notes"}), issued=False)
NOTE = msgspec.json.encode({"id": "x", "text": "t"})


@asynccontextmanager
async def admitted(bus: Bus, admission: Admission) -> AsyncGenerator[Toy]:
    """Serve the toy for those that `admission` admits."""
    for bucket in buckets.WEB:
        await open_bucket(bus, bucket, replicas=1, deadline=Deadline.after(10.0))
    async with admitting(bus, admission=admission) as access, toy_served(Toy(guard=access.gate)) as toy:
        yield toy


async def put(toy: Toy, *headers: str, **options: str) -> int:
    """Write a note and return the status."""
    return (await ask(toy, "PUT", "/notes/x", body=NOTE, headers=headers, **options)).status


async def test_a_key_of_the_settings_counts_in_its_own_header_only(bus: Bus) -> None:
    keys = (HeaderKey.of("X-Read", "r" * 20, READER), HeaderKey.of("X-Write", "w" * 20, WRITER))
    async with admitted(bus, Admission(keys=keys)) as toy:
        assert await put(toy, f"X-Write: {'w' * 20}") == 200
        assert toy.audited[-1].by == "writer_key"
        assert await put(toy, f"X-Read: {'r' * 20}") == 403
        # Of two the one that may is meant, and a wrong one is refused beside a right one.
        assert await put(toy, f"X-Read: {'r' * 20}", f"X-Write: {'w' * 20}") == 200
        assert await put(toy, f"X-Write: {'w' * 20}", "X-Read: x") == 401
        assert await put(toy, f"X-Read: {'w' * 20}") == 401
        assert await put(toy, key="w" * 20) == 401
        assert await put(toy) == 401
        # A page of another site cannot set the header without being asked first; where it could, the key counts.
        assert await put(toy, f"X-Write: {'w' * 20}", "Sec-Fetch-Site: cross-site") == 200


async def test_wrong_keys_of_the_settings_are_slowed_down_and_audited(bus: Bus) -> None:
    async with admitted(bus, Admission(keys=(HeaderKey.of("X-Write", "w" * 20, WRITER),))) as toy:
        statuses = [await put(toy, f"X-Write: {number}") for number in range(12)]
        assert statuses == [401] * 10 + [429] * 2
        assert [entry.outcome for entry in toy.audited] == ["unauthorized"] * 10


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Origin": "http://localhost"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
    ],
)
async def test_without_a_key_only_this_servers_pages_may_write(
    bus: Bus, headers: Mapping[str, str], status: int
) -> None:
    def without_key(route: AnyRoute, address: str) -> Identity:
        assert address == "127.0.0.1"
        return READER if route is GET else WRITER

    async with admitted(bus, Admission(without_key=without_key)) as toy:
        lines = [f"{name}: {value}" for name, value in headers.items()]
        assert await put(toy, *lines) == status
        # Another host name reaches nothing, and reading is no write.
        assert await put(toy, *lines, host="evil.example") == 421
        assert (await ask(toy, "GET", "/notes", headers=[f"Origin: {headers.get('Origin', 'x')}"])).status == 200


async def test_a_form_without_a_body_is_refused(bus: Bus) -> None:
    async with admitted(bus, Admission(without_key=lambda _, __: WRITER)) as toy:
        form = ["Content-Type: application/x-www-form-urlencoded", "Content-Length: 0"]
        assert (await ask(toy, "POST", "/notes", headers=form)).status == 415


async def test_only_the_routes_that_it_names_are_open(bus: Bus) -> None:
    admission = Admission(without_key=lambda route, _: READER if route is LIST else ANYBODY, remedy="send X-Read")
    async with admitted(bus, admission) as toy:
        assert (await ask(toy, "GET", "/notes")).status == 200
        refused = await ask(toy, "GET", "/notes/x")
        assert (refused.status, refused.error.remedy) == (401, "send X-Read")
        assert PUT.permission is not None
        assert await put(toy) == 401


async def test_a_client_that_asks_for_problem_json_gets_its_members_too(bus: Bus) -> None:
    async with admitted(bus, Admission()) as toy:
        accept = ["Accept: application/problem+json, application/json"]
        answer = await ask(toy, "GET", "/notes/x", headers=[*accept, "X-Request-Id: r1"])
        assert answer.headers["content-type"] == "application/problem+json"
        body = msgspec.json.decode(answer.body)
        assert body == {
            "error": "unauthorized", "detail": "this needs a key", "request_id": "r1", "type":
            "urn:membridge:error:unauthorized", "title": "unauthorized", "status": 401, "instance": "/notes/x",
            "remedy": "send a key in the header `Authorization: Bearer KEY`, or log in",
        }  # fmt: skip
        plain = await ask(toy, "GET", "/notes/x")
        assert plain.headers["content-type"] == "application/json"
        assert "status" not in msgspec.json.decode(plain.body)
