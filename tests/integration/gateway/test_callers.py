"""Who may do what: the keys of the settings, none on loopback, and what a page of another site can do: nothing."""

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from membridge.bus.connection import Bus
from membridge.embedded.nats_server import NatsServer
from membridge.errors import SettingsError
from membridge.settings import Settings, load
from schemas.web import Role
from services.gateway import callers
from services.gateway.callers import admission_of
from services.gateway.routes.runtime import HEALTH, STATS, SUBMIT
from services.web.identity import ANYBODY
from tests.fixtures.gateway import Gateway, gateway_of

RUNTIME, ADMIN, AGENT = "r" * 24, "a" * 24, "g" * 24
KEYS = {"RUNTIME_API_KEY": RUNTIME, "MEMBRIDGE_ADMIN_KEY": ADMIN, "MEMBRIDGE_AGENT_KEY": AGENT}


def of(home: Path, **environment: str) -> Settings:
    return load({"HOME": str(home), **environment}, home)


@pytest.fixture
async def locked(bus: Bus, nats_server: NatsServer, tmp_path: Path) -> AsyncGenerator[Gateway]:
    async with gateway_of(bus, nats_server.url, tmp_path, **KEYS) as gateway:
        yield gateway


@pytest.mark.parametrize(
    ("environment", "open_"),
    [
        ({}, True),
        ({"MEMBRIDGE_GATEWAY_LISTEN": "[::1]:8733"}, True),
        ({"RUNTIME_API_KEY": RUNTIME}, False),
        ({"MEMBRIDGE_GATEWAY_LISTEN": "0.0.0.0:8733"}, False),
        # A proxy would make it reachable from elsewhere.
        ({"MEMBRIDGE_GATEWAY_BEHIND_TLS": "1"}, False),
        ({"MEMBRIDGE_GATEWAY_HOSTS": "memory.example"}, False),
        ({"MEMBRIDGE_ADMIN_KEY": ADMIN}, True),
    ],
)
def test_only_where_nothing_else_reaches_it_a_caller_needs_no_key(
    tmp_path: Path, environment: dict[str, str], open_: bool
) -> None:
    admission = admission_of(of(tmp_path, **environment))
    for route in (STATS, SUBMIT):
        assert admission.without_key(route, "127.0.0.1") is (callers.OPEN if open_ else ANYBODY)
    assert admission.without_key(HEALTH, "127.0.0.1") is ANYBODY


def test_without_authentication_it_listens_on_loopback_only(tmp_path: Path) -> None:
    assert admission_of(of(tmp_path, MEMBRIDGE_DEV="1")).without_key(STATS, "127.0.0.1") is callers.DEV
    for more in (
        {"MEMBRIDGE_GATEWAY_LISTEN": "0.0.0.0:8733"},
        {"MEMBRIDGE_GATEWAY_HOSTS": "memory.example"},
        {"MEMBRIDGE_GATEWAY_BEHIND_TLS": "1"},
    ):
        with pytest.raises(SettingsError, match="MEMBRIDGE_DEV turns authentication off"):
            admission_of(of(tmp_path, MEMBRIDGE_DEV="1", **more))


async def test_each_key_counts_in_its_header_and_for_its_scopes(locked: Gateway) -> None:
    async def status(method: str, path: str, *headers: str) -> int:
        return (await locked.ask(method, path, headers=headers)).status

    stats, keys = "/api/runtime/stats", "/api/v1/keys"
    right = {"X-Runtime-API-Key": RUNTIME, "X-MEMBRIDGE-ADMIN": ADMIN, "X-MEMBRIDGE-AGENT": AGENT}
    found: dict[tuple[str, str], int] = {}
    for name, key in right.items():
        found |= {(name, path): await status("GET", path, f"{name}: {key}") for path in (stats, keys)}
    # Of tasks no coordinator answers: 503 is the answer to a caller that may ask.
    assert found == {
        ("X-Runtime-API-Key", stats): 503,
        ("X-Runtime-API-Key", keys): 403,
        ("X-MEMBRIDGE-ADMIN", stats): 503,
        ("X-MEMBRIDGE-ADMIN", keys): 200,
        ("X-MEMBRIDGE-AGENT", stats): 403,
        ("X-MEMBRIDGE-AGENT", keys): 403,
    }
    assert await status("GET", stats) == 401
    assert await status("GET", stats, f"X-Runtime-API-Key: {ADMIN}") == 401
    assert await status("GET", stats, f"X-Runtime-API-Key: {RUNTIME}x") == 401
    assert (await locked.get("/api/runtime/health"))["status"] == "degraded"
    assert (await locked.ask("GET", stats, key=await locked_key(locked))).status == 503


async def locked_key(gateway: Gateway) -> str:
    """Make a key of tasks by the key of administrators, over HTTP."""
    body = {"name": "front end", "role": Role.READER, "scopes": ["tasks"]}
    issued = await gateway.post("/api/v1/keys", body, status=201, headers=[f"X-MEMBRIDGE-ADMIN: {ADMIN}"])
    return str(issued["secret"])


async def test_a_browser_logs_in_with_the_runtime_key_and_never_with_that_of_administrators(locked: Gateway) -> None:
    for key in (ADMIN, AGENT):
        await locked.post("/api/v1/session", {"key": key}, status=401)
    answer = await locked.ask("POST", "/api/v1/session", {"key": RUNTIME}, headers=["Sec-Fetch-Site: same-origin"])
    cookie = f"Cookie: {answer.headers['set-cookie'].partition(';')[0]}"
    shown = await locked.get("/api/v1/session", headers=[cookie])
    assert (shown["key_id"], shown["role"], shown["scopes"]) == ("runtime_key", "admin", ["memory", "tasks"])
    assert (await locked.ask("GET", "/api/runtime/stats", headers=[cookie])).status == 503
    assert (await locked.ask("GET", "/api/v1/keys", headers=[cookie])).status == 403


@pytest.mark.parametrize(("rate", "statuses"), [("1", {503, 429}), ("0", {503})])
async def test_the_rates_of_a_key_are_settings(
    bus: Bus, nats_server: NatsServer, tmp_path: Path, rate: str, statuses: set[int]
) -> None:
    limits = {"MEMBRIDGE_GATEWAY_READS_PER_SECOND": rate, "MEMBRIDGE_GATEWAY_WRITES_PER_SECOND": rate}
    async with gateway_of(bus, nats_server.url, tmp_path, **limits) as gateway:
        for method, path in (("GET", "/api/runtime/stats"), ("POST", "/api/runtime/leases")):
            body = None if method == "GET" else {"worker_id": "w"}
            # Eight reads or five writes at once; of more than the rates by default a server that sets none may do all.
            found = [(await gateway.ask(method, path, body)).status for _ in range(450 if rate == "0" else 12)]
            assert set(found) == statuses, (method, found)
