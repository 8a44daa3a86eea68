"""The matrix of rights, from the declarations of the routes: every route, each caller, host and origin."""

import asyncio
import re
from collections.abc import AsyncGenerator, Iterator
from itertools import chain
from pathlib import Path

import pytest

from membridge.bus.connection import Bus
from schemas.web import Role
from services.gateway import callers
from services.gateway.routes import agent, control, events, invitations, membridge, projects, runtime, settings
from services.web import docs_page, health, keys, openapi, sessions
from services.web.identity import ANYBODY, Identity
from services.web.limits import RateLimit
from services.web.routes import AnyRoute, Kind, Route
from tests.fixtures.gateway import Gateway, gateway_of

RUNTIME, ADMIN, AGENT = "r" * 24, "a" * 24, "g" * 24
KEYS = {"RUNTIME_API_KEY": RUNTIME, "MEMBRIDGE_ADMIN_KEY": ADMIN, "MEMBRIDGE_AGENT_KEY": AGENT}
#: Callers by the key of the settings that they show, and their rights.
BY_HEADER = {
    f"X-Runtime-API-Key: {RUNTIME}": callers.RUNTIME_KEY,
    f"X-MEMBRIDGE-ADMIN: {ADMIN}": callers.ADMIN_KEY,
    f"X-MEMBRIDGE-AGENT: {AGENT}": callers.AGENT_KEY,
}
WRONG = (f"X-Runtime-API-Key: {ADMIN}", "X-MEMBRIDGE-ADMIN: x", "X-MEMBRIDGE-AGENT: x", "Authorization: Bearer mbk_x_x")
SCOPES = (callers.TASKS, callers.MEMORY, callers.AGENT, callers.ACCESS, "keys", "metrics")


def declared() -> Iterator[AnyRoute]:
    """Return the routes that the modules of the gateway and of the kit declare."""
    modules = (
        agent, control, events, invitations, membridge, projects, runtime, settings, docs_page, health, keys, openapi,
        sessions,
    )  # fmt: skip
    found = chain.from_iterable(vars(module).values() for module in modules)
    yield from {one.name: one for one in found if isinstance(one, Route)}.values()
    yield from (membridge.for_old(one) for one in (membridge.LEADERSHIP, membridge.NODES, membridge.SELECT))


ROUTES = sorted(declared(), key=lambda route: (route.path, route.method))


@pytest.fixture
async def gateway(bus: Bus, nats_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Gateway]:
    # The table has more requests than the rates allow; those have tests of their own.
    monkeypatch.setattr(RateLimit, "check", lambda *_: None)
    monkeypatch.setattr(RateLimit, "take", lambda *_: None)
    async with gateway_of(bus, nats_url, tmp_path, **KEYS) as made:
        yield made


async def status(gateway: Gateway, route: AnyRoute, *headers: str, host: str = "localhost") -> int:
    """Send a request to a route and return the status of the answer; a stream is left at once."""
    path = re.sub(r"\{\w+\}", "x", route.path)
    lines = [f"{route.method.value} {path} HTTP/1.1", f"Host: {host}", "Connection: close", *headers]
    body = b"{}" if route.has_body else b""
    lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"] if body else []
    reader, writer = await asyncio.open_connection(gateway.where.host, gateway.where.port)
    try:
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        async with asyncio.timeout(30.0):
            return int((await reader.readline()).split()[1])
    finally:
        writer.close()


def refusal(route: AnyRoute, caller: Identity) -> int | None:
    """Return the status with which a caller is refused, None if it may use the route."""
    if route.permission is None or caller.may(route.permission.scope, route.permission.role):
        return None
    return 401 if caller is ANYBODY else 403


async def test_the_table_has_every_route_of_the_gateway(gateway: Gateway) -> None:
    document = await gateway.get("/openapi.json")
    served = {operation["operationId"] for path in document["paths"].values() for operation in path.values()}
    assert served == {route.name for route in ROUTES}
    assert len(served) == len(ROUTES) > 60


async def test_each_caller_may_use_what_its_rights_say_and_nothing_else(gateway: Gateway) -> None:
    issued = {
        f"Authorization: Bearer {await gateway.key(role, scope)}": Identity("k", "", role, frozenset({scope}))
        for scope in SCOPES
        for role in (Role.READER, Role.OPERATOR)
    }
    known = {"X-Nothing: x": ANYBODY, **BY_HEADER, **issued}
    wrong: list[str] = []
    for route in ROUTES:
        for header, caller in known.items():
            expected, found = refusal(route, caller), await status(gateway, route, header)
            if route.name == "register_project" and caller is ANYBODY:
                # An agent of this machine may.
                expected = None
            if (found == expected) if expected is not None else (found not in {401, 403, 421, 429, 500}):
                continue
            wrong.append(f"{route.name} with {header}: {found}, not {expected}")
    assert not wrong


async def test_a_wrong_key_opens_nothing_even_beside_a_right_one(gateway: Gateway) -> None:
    right = f"X-MEMBRIDGE-ADMIN: {ADMIN}"
    for route in ROUTES:
        if route.permission is None:
            continue
        for header in WRONG:
            assert await status(gateway, route, header) == 401, (route.name, header)
        assert await status(gateway, route, right, f"X-Runtime-API-Key: {ADMIN}") == 401, route.name


async def test_another_host_name_reaches_nothing_whatever_key_it_shows(gateway: Gateway) -> None:
    for route in ROUTES:
        for host in ("evil.example", "localhost.evil.example", "127.0.0.1.evil.example", ""):
            found = await status(gateway, route, f"X-MEMBRIDGE-ADMIN: {ADMIN}", host=host)
            assert found in {400, 421}, (route.name, host)


@pytest.mark.parametrize("environment", [{}, {"MEMBRIDGE_DEV": "1"}])
async def test_with_authentication_off_no_page_of_another_site_changes_anything(
    bus: Bus, nats_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    monkeypatch.setattr(RateLimit, "take", lambda *_: None)
    async with gateway_of(bus, nats_url, tmp_path, **environment) as gateway:
        for route in ROUTES:
            may = callers.DEV if environment else callers.OPEN
            is_open = refusal(route, may) is None or route.name == "register_project"
            for header in ("Origin: http://evil.example", "Origin: null", "Sec-Fetch-Site: cross-site"):
                found = await status(gateway, route, header)
                if route.writes and is_open and route.name != "login":
                    assert found == 403, (route.name, header)
                elif not is_open:
                    assert found == 401, (route.name, header)
            if route.kind is not Kind.EVENTS and is_open and route.writes:
                # The same from a page of its own, and from no browser at all.
                for header in ("Sec-Fetch-Site: same-origin", "X-Nothing: x"):
                    assert await status(gateway, route, header) not in {401, 403, 421}, (route.name, header)
