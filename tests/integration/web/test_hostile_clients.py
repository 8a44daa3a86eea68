"""Clients that send slowly, too much, or what is not HTTP: each is refused in the form of any error, or cut off."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from schemas.errors import ErrorCode
from services.web import app, errors, server
from services.web.limits import Flights
from services.web.server import Listening
from tests.fixtures.pace import pause
from tests.fixtures.toy_web import JSON, Toy, ask, parsed, raw, toy_served

HEAD = f"POST /notes HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer admin\r\n{JSON}\r\n".encode()
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


def chunk(body: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(body), body)


def recorded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return where the failures that the kit logs from now on are kept."""
    failures: list[str] = []
    monkeypatch.setattr(errors.log, "error", lambda event, **_: failures.append(event))
    return failures


async def test_headers_that_never_end_cost_a_connection_for_a_bounded_time() -> None:
    async with toy_served(listening=Listening(idle=0.2)) as toy:
        for begun in (b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: local"):
            assert await raw(toy, begun) == b""


async def test_a_body_that_never_ends_is_ended_by_the_deadline_of_its_route() -> None:
    async with toy_served() as toy:
        answer = parsed(
            await raw(toy, b"POST /late HTTP/1.1\r\nHost: l\r\n" + JSON.encode() + b"\r\nContent-Length: 9\r\n\r\n{")
        )
        assert (answer.status, answer.headers["connection"]) == (504, "close")


async def test_a_chunked_body_is_bounded_as_any_other() -> None:
    async with toy_served() as toy:
        answer = parsed(await raw(toy, CHUNKED + chunk(b'{"id":"') + chunk(b"x" * 100_000)))
        assert (answer.status, answer.error.error) == (413, ErrorCode.TOO_LARGE)
        small = CHUNKED.removesuffix(b"\r\n") + b"Connection: close\r\n\r\n" + chunk(b'{"id":') + chunk(b'"a"}')
        kept = await raw(toy, small + b"0\r\n\r\n")
        assert kept.startswith(b"HTTP/1.1 201")


async def test_a_large_body_is_refused_before_it_is_sent() -> None:
    async with toy_served() as toy:
        answer = parsed(await raw(toy, HEAD + b"Expect: 100-continue\r\nContent-Length: 99999999999\r\n\r\n"))
        assert (answer.status, answer.error.error) == (413, ErrorCode.TOO_LARGE)


async def test_a_client_that_waits_for_leave_to_send_its_body_gets_it() -> None:
    async with toy_served() as toy:
        head = HEAD + b"Connection: close\r\nExpect: 100-continue\r\nContent-Length: 10\r\n\r\n"
        async with asyncio.timeout(10.0):
            reader, writer = await asyncio.open_connection(toy.host, toy.port)
            writer.write(head)
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            writer.write(b'{"id":"a"}')
            assert parsed(await reader.read()).status == 201
            writer.close()


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: l\r\n" + b"".join(b"X-%d: 1\r\n" % one for one in range(server.FIELDS + 5)) + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: l\r\nX: " + b"x" * (server.FIELD + 10) + b"\r\n\r\n",
        b"GET /" + b"x" * (server.LINE + 10) + b" HTTP/1.1\r\nHost: l\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\nHost l\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: l\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /slow HTTP/1.1\r\nHost: l\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n{}",
    ],
    ids=["many headers", "a long header", "a long address", "TLS", "no colon", "two lengths", "smuggled"],
)
async def test_what_is_not_http_is_refused_in_the_form_of_any_error(sent: bytes) -> None:
    async with toy_served() as toy:
        answer = parsed(await raw(toy, sent))
        assert (answer.status, answer.error.error) == (400, ErrorCode.INVALID_REQUEST)
        assert answer.error.request_id == answer.headers["x-request-id"]
        assert (await ask(toy, "GET", "/health")).status == 200


async def test_chunks_that_are_none_are_refused() -> None:
    async with toy_served() as toy:
        assert parsed(await raw(toy, CHUNKED + b"zz\r\nnonsense\r\n0\r\n\r\n")).status == 400


@pytest.mark.parametrize("path", ["/notes/%FF%FE", "/notes/%00", "/notes/%ED%A0%80", "/notes?tags=%FF", "/notes/\xff"])
async def test_an_address_that_is_not_utf_8_harms_nobody(path: str) -> None:
    async with toy_served() as toy:
        answer = await ask(toy, "GET", path, key="reader")
        assert answer.status in {200, 400, 404}
        assert answer.status == 200 or answer.error.request_id


async def test_requests_of_one_connection_are_answered_in_their_order() -> None:
    async with toy_served() as toy:
        bodies = [b'{"id":"n%d"}' % one for one in range(20)]
        sent = [HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body for body in bodies]
        received = await raw(toy, b"".join(sent) + b"GET /health HTTP/1.1\r\nHost: l\r\nConnection: close\r\n\r\n")
        assert received.count(b"HTTP/1.1 201") == 20
        places = [received.index(b'"id":"n%d"' % one) for one in range(20)]
        assert places == sorted(places)
        assert received.index(b'"ok"') > places[-1]


async def test_a_refused_body_ends_its_connection_and_what_is_pipelined_behind_it_is_not_answered() -> None:
    async with toy_served() as toy:
        large = HEAD + b"Content-Length: 200000\r\n\r\n" + b"x" * 1000
        received = await raw(toy, large + b"GET /health HTTP/1.1\r\nHost: l\r\n\r\n")
        assert received.count(b"HTTP/1.1") == 1


async def test_a_client_that_does_not_read_its_answer_is_cut_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failures = recorded(monkeypatch)
    monkeypatch.setattr(app, "SEND", 0.2)
    async with toy_served() as toy:
        reader, writer = await asyncio.open_connection(toy.host, toy.port, limit=1)
        writer.write(b"GET /big HTTP/1.1\r\nHost: l\r\n\r\n")
        async with asyncio.timeout(10.0):
            await toy.begun.get()
            while len(toy.flights) > 0:
                await pause()
            with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
                await reader.readexactly(16 << 20)
        writer.close()
    assert failures == []


async def test_connections_over_the_bound_are_closed_and_the_others_served() -> None:
    async with toy_served(listening=Listening(most_connections=3)) as toy, AsyncExitStack() as stack:
        for _ in range(3):
            _, writer = await asyncio.open_connection(toy.host, toy.port)
            writer.write(b"POST /slow HTTP/1.1\r\nHost: l\r\n\r\n")
            stack.callback(writer.close)
            await toy.begun.get()
        with pytest.raises((ConnectionError, IndexError)):
            await ask(toy, "GET", "/health")
        toy.go.set()


async def test_requests_over_the_bound_are_told_to_come_later() -> None:
    async with toy_served(Toy(flights=Flights(1))) as toy, asyncio.TaskGroup() as group:
        running = group.create_task(ask(toy, "POST", "/slow"))
        await toy.begun.get()
        refused = await ask(toy, "GET", "/notes", key="reader")
        assert (refused.status, refused.headers["retry-after"]) == (429, "1")
        toy.go.set()
        assert (await running).status == 200


async def test_a_client_that_leaves_in_the_middle_of_its_body_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    failures = recorded(monkeypatch)
    async with toy_served() as toy:
        _, writer = await asyncio.open_connection(toy.host, toy.port)
        writer.write(HEAD + b"Content-Length: 100\r\n\r\n{")
        while len(toy.flights) == 0:
            await pause()
        writer.close()
        while len(toy.flights) > 0:
            await pause()
        assert (await ask(toy, "GET", "/health")).status == 200
    assert failures == []
