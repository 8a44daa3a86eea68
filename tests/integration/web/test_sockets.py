"""The same items over a WebSocket."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import aiohttp
import msgspec
from aiohttp import ClientWebSocketResponse, WSMsgType, WSServerHandshakeError

from membridge.bus.connection import Bus
from schemas.web import Role
from services.web.streaming import StreamLimits
from tests.fixtures.event_stream import publish
from tests.fixtures.toy_web import ask
from tests.fixtures.web_access import Guarded, guarded


@asynccontextmanager
async def connected(
    served: Guarded, key: str = "", *, last: str = "", headers: dict[str, str] | None = None, autoping: bool = True
) -> AsyncGenerator[ClientWebSocketResponse]:
    """Connect a client during the body."""
    shown = {**({"Authorization": f"Bearer {key}"} if key else {}), **(headers or {})}
    async with aiohttp.ClientSession() as session:
        url = f"http://{served.toy.host}:{served.toy.port}/socket?last_event_id={last}"
        async with session.ws_connect(url, headers=shown, autoping=autoping) as socket:
            yield socket


async def refused(served: Guarded, headers: dict[str, str]) -> int:
    """Return the status that a handshake is refused with, 101 when it is not."""
    try:
        async with connected(served, headers=headers):
            return 101
    except WSServerHandshakeError as error:
        return error.status


async def test_a_client_gets_what_comes_and_resumes_where_it_was(bus: Bus) -> None:
    async with guarded(bus) as served:
        key = await served.key(Role.READER)
        async with connected(served, key) as socket:
            await publish(bus, 1, 2)
            first = await socket.receive_json(timeout=20.0)
            assert first["data"] == 1
        async with connected(served, key, last=first["id"]) as socket:
            assert (await socket.receive_json(timeout=20.0))["data"] == 2
        async with connected(served, key, last="another/9") as socket:
            assert (await socket.receive_json(timeout=20.0))["reset"] is True


async def test_a_client_that_speaks_is_not_listened_to(bus: Bus) -> None:
    async with guarded(bus) as served, connected(served, await served.key(Role.READER)) as socket:
        await socket.send_str("hello")
        assert (await socket.receive(timeout=20.0)).type is WSMsgType.CLOSE
        assert socket.close_code == aiohttp.WSCloseCode.GOING_AWAY


async def test_an_idle_socket_lives_as_long_as_its_client_answers(bus: Bus) -> None:
    async with (
        guarded(bus, limits=StreamLimits(heartbeat=0.1)) as served,
        connected(served, await served.key(Role.READER), autoping=False) as socket,
    ):
        for _ in range(3):
            asked = await socket.receive(timeout=20.0)
            assert asked.type is WSMsgType.PING
            await socket.pong(asked.data)
        while (await socket.receive(timeout=20.0)).type is WSMsgType.PING:
            pass
        assert socket.closed


async def test_a_revoked_key_closes_its_sockets(bus: Bus) -> None:
    async with guarded(bus) as served:
        admin, key = await served.key(), await served.key(Role.READER)
        async with connected(served, key) as socket:
            await ask(served.toy, "DELETE", f"/api/v1/keys/{key.split('_')[1]}", key=admin)
            await socket.receive(timeout=20.0)
            assert socket.close_code == aiohttp.WSCloseCode.POLICY_VIOLATION


async def test_a_page_of_another_site_opens_no_socket_with_its_visitors_cookie(bus: Bus) -> None:
    async with guarded(bus) as served:
        body = msgspec.json.encode({"key": await served.key()})
        answer = await ask(served.toy, "POST", "/api/v1/session", body=body)
        cookie = {"Cookie": answer.headers["set-cookie"].partition(";")[0]}
        own = f"http://{served.toy.host}:{served.toy.port}"
        assert await refused(served, {**cookie, "Origin": "http://evil.example"}) == 403
        assert await refused(served, {**cookie, "Sec-Fetch-Site": "cross-site", "Origin": own}) == 403
        assert await refused(served, cookie) == 403
        assert await refused(served, {**cookie, "Origin": own}) == 101
        assert await refused(served, {}) == 401


async def test_a_request_without_an_upgrade_is_refused(bus: Bus) -> None:
    async with guarded(bus) as served:
        answer = await ask(served.toy, "GET", "/socket", key=await served.key(Role.READER))
        assert (answer.status, answer.error.detail) == (400, "this address accepts only WebSocket connections")
