"""What each service that answers HTTP has without a line of its own: keys, sessions, health, a document, an audit."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from membridge.aio.deadline import Deadline
from membridge.bus.connection import Bus
from membridge.bus.kv import Kv
from membridge.bus.streams import last_per_subject
from membridge.errors import UnavailableError
from membridge.settings import load
from membridge.wiring.bus import ensure
from membridge.wiring.service import Service, WebOptions
from schemas import buckets, streams
from schemas.node import Empty
from schemas.web import AuditEntry, IssueKeyRequest, Role
from services.coordinator.settings import CoordinatorSettings
from services.web import keys
from services.web.health import Check
from services.web.service import Call, Method, Permission, Route, served
from tests.fixtures.toy_web import Toy, ask

NOTHING = Route("nothing", Method.POST, "/nothing", Empty, Empty, "Do nothing.", Permission("notes", Role.READER))


async def nothing(_: Empty, __: Call) -> Empty:
    return Empty()


async def never(*_: object) -> None:
    raise AssertionError


def declared(listen: str = "127.0.0.1:0", *hosts: str) -> Service:
    return Service(
        name="plain", summary="a service", settings=CoordinatorSettings, enabled=lambda _: True, part=never,
        web=lambda _: WebOptions(listen=listen, hosts=hosts),
    )  # fmt: skip


@asynccontextmanager
async def running(
    bus: Bus, home: Path, service: Service, checks: Mapping[str, Check] | None = None
) -> AsyncGenerator[Toy]:
    """Serve one route during the body."""
    await ensure(bus, service.all_streams, service.all_buckets, replicas=1, deadline=Deadline.after(10.0))
    async with served(service, load({}, home), bus, [NOTHING.bind(nothing)], checks=checks) as (host, port):
        yield Toy(host=host, port=port)


async def new_key(bus: Bus) -> str:
    wanted = IssueKeyRequest(name="n", role=Role.ADMIN, scopes=["*"])
    issued = await keys.issue(Kv(bus, buckets.API_KEYS), wanted, by="test", deadline=Deadline.after(5.0))
    return issued.secret


async def test_its_routes_are_guarded_documented_counted_and_audited(bus: Bus, tmp_path: Path) -> None:
    async with running(bus, tmp_path, declared()):
        key = await new_key(bus)
    # A server that starts now knows the key.
    async with running(bus, tmp_path, declared()) as web:
        assert (await ask(web, "POST", "/nothing")).status == 401
        assert (await ask(web, "POST", "/nothing", key=key)).status == 200
        paths = msgspec.json.decode((await ask(web, "GET", "/openapi.json")).body)["paths"]
        assert {"/nothing", "/health", "/ready", "/metrics", "/api/v1/keys", "/api/v1/session"} <= paths.keys()
        counted = (await ask(web, "GET", "/metrics", key=key)).body
        assert b'membridge_http_requests_total{method="POST",route="nothing",status="200"} 1.0' in counted
        [entry] = await last_per_subject(
            bus, streams.WEB_AUDIT, streams.WEB_AUDIT.subjects[0], limit=9, deadline=Deadline.after(5.0)
        )
        assert msgspec.json.decode(entry.body, type=AuditEntry).action == "nothing"


async def test_it_is_ready_while_its_own_checks_are(bus: Bus, tmp_path: Path) -> None:
    trouble: list[UnavailableError] = []

    async def check() -> None:
        if trouble:
            raise trouble[0]

    async with running(bus, tmp_path, declared(), {"table": check}) as web:
        ready = await ask(web, "GET", "/ready")
        assert (ready.status, msgspec.json.decode(ready.body)["checks"]) == (200, ["keys", "table"])
        trouble.append(UnavailableError("away"))
        refused = await ask(web, "GET", "/ready")
        assert (refused.status, refused.error.detail) == (503, "not ready: table: away")


async def test_a_session_of_one_server_is_one_of_the_others(bus: Bus, tmp_path: Path) -> None:
    async with running(bus, tmp_path, declared()):
        body = msgspec.json.encode({"key": await new_key(bus)})
    async with running(bus, tmp_path, declared()) as one, running(bus, tmp_path, declared()) as other:
        login = await ask(one, "POST", "/api/v1/session", body=body)
        cookie = login.headers["set-cookie"].partition(";")[0]
        assert (await ask(other, "GET", "/api/v1/session", headers=[f"Cookie: {cookie}"])).status == 200


async def test_it_answers_to_its_address_and_the_names_that_it_is_given(bus: Bus, tmp_path: Path) -> None:
    async with running(bus, tmp_path, declared("0.0.0.0:0", "Memory.example")) as web:
        for host, status in (("0.0.0.0", 200), ("memory.example", 200), ("other.example", 421)):  # noqa: S104 - a name
            assert (await ask(web, "GET", "/health", host=host)).status == status


async def test_an_address_that_is_taken_is_named(bus: Bus, tmp_path: Path) -> None:
    async with running(bus, tmp_path, declared()) as web:
        with pytest.raises(UnavailableError, match=rf"^cannot listen at 127.0.0.1:{web.port}: address already in use$"):
            async with running(bus, tmp_path, declared(f"127.0.0.1:{web.port}")):
                pass
