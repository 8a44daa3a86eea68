"""Pages of other sites: none may use the gateway unless the settings name its origin, and then never with a cookie."""

import re
from collections.abc import AsyncGenerator
from pathlib import Path

import msgspec
import pytest

from membridge.bus.connection import Bus
from services.web.limits import RateLimit
from tests.fixtures.gateway import Gateway, gateway_of
from tests.fixtures.toy_web import Answer
from tests.integration.gateway.test_matrix import ADMIN, ROUTES, RUNTIME

PAGE, EVIL = "https://app.example", "https://evil.example"
CORS = "access-control-"


@pytest.fixture
async def gateway(bus: Bus, nats_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Gateway]:
    monkeypatch.setattr(RateLimit, "take", lambda *_: None)
    origins = f"{PAGE}, http://localhost:5173"
    async with gateway_of(bus, nats_url, tmp_path, MEMBRIDGE_GATEWAY_ORIGINS=origins, RUNTIME_API_KEY=RUNTIME) as made:
        yield made


async def preflight(gateway: Gateway, path: str, origin: str, *, host: str = "") -> Answer:
    headers = [f"Origin: {origin}", "Access-Control-Request-Method: POST", "Sec-Fetch-Site: cross-site"]
    return await gateway.ask("OPTIONS", re.sub(r"\{\w+\}", "x", path), headers=headers, host=host)


def cors(answer: Answer) -> dict[str, str]:
    return {name.removeprefix(CORS): value for name, value in answer.headers.items() if name.startswith(CORS)}


async def test_every_route_answers_a_preflight_of_a_named_page_and_of_no_other(gateway: Gateway) -> None:
    for route in ROUTES:
        asked = await preflight(gateway, route.path, PAGE)
        assert (asked.status, asked.body) == (204, b""), route.name
        said = cors(asked)
        assert said["allow-origin"] == PAGE
        assert route.method.value in said["allow-methods"].split(", ")
        assert {"Authorization", "Content-Type", "X-Runtime-API-Key"} <= set(said["allow-headers"].split(", "))
        # The key of administrators is none for a browser, and a cookie is never asked for.
        assert "admin" not in said["allow-headers"].lower()
        assert "allow-credentials" not in said
        for origin in (EVIL, "null", f"{PAGE}.evil.example", PAGE.upper(), "http://app.example"):
            refused = await preflight(gateway, route.path, origin)
            assert (refused.status, cors(refused)) == (403, {}), (route.name, origin)
        assert (await preflight(gateway, route.path, PAGE, host="evil.example")).status == 421
    assert (await preflight(gateway, "/nowhere", PAGE)).status == 404
    assert (await gateway.ask("OPTIONS", "/health")).headers["allow"] == "GET"


async def test_a_named_page_reads_answers_and_errors_and_streams_with_its_key(gateway: Gateway) -> None:
    key = f"X-Runtime-API-Key: {RUNTIME}"
    for path, headers, status in (
        ("/health", [], 200),
        ("/api/runtime/stats", [], 401),
        ("/api/runtime/stats", [key], 503),
        ("/nowhere", [], 404),
    ):
        answer = await gateway.ask("GET", path, headers=[*headers, f"Origin: {PAGE}", "Sec-Fetch-Site: cross-site"])
        assert answer.status == status
        assert cors(answer) == {"allow-origin": PAGE, "expose-headers": "Retry-After, X-Request-Id"}
        assert answer.headers["vary"] == "Origin"
        for origin in (EVIL, "null"):
            answer = await gateway.ask("GET", path, headers=[*headers, f"Origin: {origin}"])
            assert (cors(answer), answer.headers["vary"]) == ({}, "Origin")
    written = await gateway.ask("POST", "/api/runtime/test-connection", {}, headers=[key, f"Origin: {PAGE}"])
    assert (written.status, cors(written)["allow-origin"]) == (200, PAGE)


async def test_a_session_does_not_count_for_a_page_elsewhere(gateway: Gateway) -> None:
    login = {"key": RUNTIME}
    for origin in (PAGE, EVIL):
        headers = [f"Origin: {origin}", "Sec-Fetch-Site: cross-site"]
        assert (await gateway.ask("POST", "/api/v1/session", login, headers=headers)).status == 403
    answer = await gateway.ask("POST", "/api/v1/session", login, headers=["Sec-Fetch-Site: same-origin"])
    cookie = f"Cookie: {answer.headers['set-cookie'].partition(';')[0]}"
    for headers, status in (
        ([f"Origin: {PAGE}"], 403),
        ([f"Origin: {PAGE}", "Sec-Fetch-Site: same-site"], 403),
        (["Sec-Fetch-Site: same-origin"], 200),
    ):
        assert (await gateway.ask("DELETE", "/api/v1/session", headers=[cookie, *headers])).status == status


@pytest.mark.parametrize("environment", [{}, {"RUNTIME_API_KEY": RUNTIME, "MEMBRIDGE_ADMIN_KEY": ADMIN}])
async def test_unless_it_is_configured_no_page_elsewhere_is_answered(
    bus: Bus, nats_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    monkeypatch.setattr(RateLimit, "take", lambda *_: None)
    async with gateway_of(bus, nats_url, tmp_path, **environment) as gateway:
        for route in ROUTES:
            asked = await preflight(gateway, route.path, PAGE)
            assert (asked.status, cors(asked)) == (405, {}), route.name
        answer = await gateway.ask("GET", "/health", headers=[f"Origin: {PAGE}"])
        assert (answer.status, cors(answer)) == (200, {})
        assert msgspec.json.decode(answer.body)["status"] == "ok"
