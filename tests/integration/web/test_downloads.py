"""Files part by part: whole with their length, cut where their source fails, and over when they have to be."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from membridge.errors import CorruptObjectError, CredentialsError, NotFoundError
from schemas.node import Empty
from schemas.web import Role
from services.web.broadcast import broadcasting
from services.web.downloads import Download
from services.web.identity import Identity
from services.web.routes import Call, Kind, Method, Route, Text
from services.web.streaming import StreamLimits, Streams
from tests.fixtures.toy_web import READ, Toy, ask, toy_served

FILE = Route(
    "file", Method.GET, "/file", Empty, Text, "A file.", READ, kind=Kind.FILE, content_type="application/vnd.sqlite3"
)
PART = bytes(range(256)) * 2_048
LIMITS = StreamLimits(most=4, most_of_one=2, slow=0.5)


@asynccontextmanager
async def serving(
    parts: Callable[[], AsyncGenerator[bytes]], size: int, recheck: Callable[[Identity], None] = lambda _: None
) -> AsyncGenerator[Toy]:
    """Serve a file of these parts; one without a size is not there."""

    async def opened(_: Empty, __: Call) -> Download:
        if not size:
            raise NotFoundError("there is no file", remedy="make it")
        return Download("12-0a1b2c3d.db", size, parts())

    async with broadcasting() as broadcast:
        toy = Toy(further=[FILE.download(opened)])
        toy.streams = Streams(broadcast, recheck, toy.flights, toy.metrics, LIMITS)
        async with toy_served(toy):
            yield toy


async def three() -> AsyncGenerator[bytes]:
    for _ in range(3):
        yield PART


async def test_a_file_comes_whole_with_its_name_and_length_to_those_who_may() -> None:
    async with serving(three, 3 * len(PART)) as toy:
        answer = await ask(toy, "GET", "/file", key=Role.READER)
        assert answer.body == 3 * PART
        assert answer.headers["content-length"] == str(3 * len(PART))
        assert answer.headers["content-disposition"] == 'attachment; filename="12-0a1b2c3d.db"'
        assert answer.headers["content-type"] == "application/vnd.sqlite3"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert (await ask(toy, "GET", "/file")).status == 401
        assert toy.streams is not None
        assert len(toy.streams) == 0


async def test_a_file_that_is_not_there_is_an_error_like_any_other() -> None:
    async with serving(three, 0) as toy:
        answer = await ask(toy, "GET", "/file", key=Role.READER)
        assert (answer.status, answer.error.error) == (404, "not_found")


async def test_a_source_that_fails_ends_the_connection_before_the_length() -> None:
    async def torn() -> AsyncGenerator[bytes]:
        yield PART
        raise CorruptObjectError("the file became shorter while it was read")

    async with serving(torn, 3 * len(PART)) as toy:
        with suppress(ConnectionError):
            answer = await ask(toy, "GET", "/file", key=Role.READER)
            assert answer.headers["content-length"] == str(3 * len(PART))
            assert len(answer.body) <= len(PART)
        assert toy.streams is not None
        assert len(toy.streams) == 0


@pytest.mark.parametrize("how", ["a key that is revoked", "a client that does not read"])
async def test_a_download_ends_with_its_key_and_when_its_client_does_not_read(how: str) -> None:
    revoked, ended = asyncio.Event(), asyncio.Event()

    async def endless() -> AsyncGenerator[bytes]:
        try:
            while True:
                yield PART
        finally:
            ended.set()

    def recheck(_: Identity) -> None:
        if revoked.is_set():
            raise CredentialsError("revoked")

    async with serving(endless, 1 << 40, recheck) as toy:
        reader, writer = await asyncio.open_connection(toy.host, toy.port)
        writer.write(b"GET /file HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer reader\r\n\r\n")
        async with asyncio.timeout(20.0):
            await reader.readexactly(len(PART))
            assert toy.streams is not None
            if "key" in how:
                revoked.set()
                toy.streams.recheck()
            await ended.wait()
            with suppress(ConnectionError):
                while await reader.read(1 << 20):
                    pass
        writer.close()
        assert len(toy.streams) == 0
