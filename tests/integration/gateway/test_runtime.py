"""`/api/runtime` on a real coordinator with each database: every route, and a worker that lives on them."""

import secrets

import pytest

from membridge.embedded.nats_server import NatsServer
from membridge.worker.report import PIECE
from schemas.tasks import TaskStatus
from schemas.workers import WorkerStatus
from services.coordinator.settings import CoordinatorSettings
from tests.fixtures.gateway import Gateway, gateway_of
from tests.fixtures.tasks import OpenPlace, Place

SPEC = {"context_id": "c", "agent_slug": "helper", "prompt": "say hello"}
UNKNOWN = "01234567-89ab-4cde-8f01-23456789abcd"


async def submitted(gateway: Gateway, **more: object) -> dict[str, object]:
    """Submit a task over HTTP."""
    return await gateway.post("/api/runtime/llm-tasks", {**SPEC, **more}, status=201)


async def test_a_worker_lives_on_lease_heartbeat_and_complete(opened: OpenPlace, nats_server: NatsServer) -> None:
    async with opened() as place, gateway_of(place.bus, nats_server.url, place.settings.node.state_dir) as gateway:
        await place.coordinator()
        worker = await gateway.post(
            "/api/runtime/workers", {"id": "http-1", "capabilities": {"labels": ["gpu=yes"]}}, status=201
        )
        assert (worker["id"], worker["status"], worker["capabilities"]["labels"]) == ("http-1", "online", ["gpu=yes"])
        task = await submitted(gateway)
        at = f"/api/runtime/llm-tasks/{task['id']}"
        leased = await gateway.post(f"{at}/lease", {"worker_id": "http-1", "nonce": "n"})
        lease = leased["order"]["lease"]
        assert leased["order"]["task"]["prompt"] == "say hello"
        # The answer was lost: the same nonce returns the same lease.
        again = await gateway.post(f"{at}/lease", {"worker_id": "http-1", "nonce": "n"})
        assert again["order"]["lease"]["id"] == lease["id"]
        claim = {"worker_id": "http-1", "lease_id": lease["id"]}
        assert (await gateway.post(f"{at}/heartbeat", claim))["expires_at"] >= lease["expires_at"]
        detail = await gateway.get("/api/runtime/workers/http-1")
        assert ([one["id"] for one in detail["leases"]], detail["active_leases"]) == ([lease["id"]], 1)
        assert [one["id"] for one in (await gateway.get("/api/runtime/leases?status=active"))["leases"]] == [
            lease["id"]
        ]
        done = await gateway.post(f"{at}/complete", {**claim, "output": "hello", "metrics": {"duration_ms": 3}})
        assert (done["task"]["status"], done["result"]["output"]) == ("completed", "hello")
        # Told again, because the answer was lost.
        late = await gateway.ask("POST", f"{at}/complete", {**claim, "output": "hello", "metrics": {"duration_ms": 3}})
        assert (late.status, late.error.error) == (409, "lease_lost")
        assert (await gateway.get(at))["status"] == "completed"
        artifact = done["artifact"]["id"]
        listed = await gateway.get(f"/api/runtime/artifacts?task_id={task['id']}")
        assert [one["id"] for one in listed["artifacts"]] == [artifact]
        assert (await gateway.get(f"/api/runtime/artifacts/{artifact}"))["content"] == "hello"
        assert [one["status"] for one in (await gateway.get("/api/runtime/runs"))["runs"]] == ["completed"]
        events = (await gateway.get(f"{at}/events"))["events"]
        assert [one["status"] for one in events if one["kind"] == "status"][-1] == "completed"
        # The audit of the coordinator names the caller of the gateway.
        records = (await gateway.get("/api/runtime/audit?limit=100"))["records"]
        submitted_by = next(one["actor"] for one in records if one["action"] == "submitted")
        assert submitted_by == "open@gateway"
        stats = await gateway.get("/api/runtime/stats")
        assert stats["tasks"] == {"completed": 1}
        assert (stats["ended_by_agent"], stats["ended_by_worker"]) == ({"helper": 1}, {"http-1": 1})
        assert (await gateway.delete("/api/runtime/workers/http-1"))["id"] == "http-1"
        assert (await gateway.ask("GET", "/api/runtime/workers/http-1")).status == 404


async def test_a_large_output_arrives_whole(opened: OpenPlace, nats_server: NatsServer) -> None:
    output = secrets.token_urlsafe(PIECE * 3) + "ü€\u2028" + '"\\' * 1_000
    async with opened() as place, gateway_of(place.bus, nats_server.url, place.settings.node.state_dir) as gateway:
        await place.coordinator()
        task = await submitted(gateway)
        order = (await gateway.post("/api/runtime/leases", {"worker_id": "http-1"}))["order"]
        body = {"worker_id": "http-1", "lease_id": order["lease"]["id"], "output": output}
        done = await gateway.post(f"/api/runtime/llm-tasks/{task['id']}/complete", body)
        content, offset = "", 0
        while offset is not None:
            part = await gateway.get(f"/api/runtime/artifacts/{done['artifact']['id']}?offset={offset}")
            content, offset = content + part["content"], part.get("next_offset")
        assert content == output


async def test_tasks_are_cancelled_requeued_and_listed(opened: OpenPlace, nats_server: NatsServer) -> None:
    async with opened() as place, gateway_of(place.bus, nats_server.url, place.settings.node.state_dir) as gateway:
        await place.coordinator()
        first, second = await submitted(gateway, context_id="a"), await submitted(gateway, context_id="b")
        at = f"/api/runtime/llm-tasks/{first['id']}"
        assert (await gateway.post(f"{at}/cancel", {"reason": "not now"}))["reason"] == "not now"
        assert [one["id"] for one in (await gateway.get("/api/runtime/llm-tasks?status=dead"))["tasks"]] == [
            first["id"]
        ]
        # Old clients send no body.
        assert (await gateway.ask("POST", f"{at}/requeue")).status == 200
        assert (await place.task(str(first["id"]))).status is TaskStatus.QUEUED
        listed = await gateway.get("/api/runtime/llm-tasks?limit=1")
        assert ([one["id"] for one in listed["tasks"]], listed["more"]) == ([second["id"]], True)
        page = await gateway.get(f"/api/runtime/llm-tasks?limit=5&before={second['id']}")
        assert [one["id"] for one in page["tasks"]] == [first["id"]]
        key = {"idempotency_key": "k"}
        assert (await submitted(gateway, **key))["id"] == (await submitted(gateway, **key))["id"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "field"),
    [
        ("GET", f"/llm-tasks/{UNKNOWN}", None, 404, None),
        ("GET", "/llm-tasks?status=odd", None, 400, "status"),
        ("GET", "/llm-tasks?limit=0", None, 400, "limit"),
        ("POST", "/llm-tasks", {"agent_slug": "x"}, 400, "prompt"),
        ("POST", "/llm-tasks", {"agent_slug": "x", "prompt": "a\0"}, 400, "prompt"),
        ("POST", "/llm-tasks", {"agent_slug": "x", "prompt": "p" * (1 << 20) + "p"}, 413, "prompt"),
        ("POST", "/llm-tasks", {"agent_slug": "x", "prompt": "p" * (2 << 20)}, 413, None),
        ("POST", f"/llm-tasks/{UNKNOWN}/cancel", {}, 404, None),
        ("POST", f"/llm-tasks/{UNKNOWN}/lease", {"worker_id": "w"}, 404, None),
        ("POST", f"/llm-tasks/{UNKNOWN}/lease", {"worker_id": "a.b"}, 400, "worker_id"),
        ("POST", f"/llm-tasks/{UNKNOWN}/heartbeat", {"worker_id": "w", "lease_id": UNKNOWN}, 409, None),
        ("POST", f"/llm-tasks/{UNKNOWN}/complete", {"worker_id": "w", "lease_id": UNKNOWN}, 409, None),
        ("GET", "/workers/nobody", None, 404, None),
        ("DELETE", "/workers/nobody", None, 404, None),
        ("GET", f"/artifacts/{UNKNOWN}", None, 404, None),
        ("PUT", "/llm-tasks", {}, 405, None),
    ],
)
async def test_a_refusal_has_its_status_and_its_field(
    refusing: Gateway, method: str, path: str, body: object, status: int, field: str | None
) -> None:
    answer = await refusing.ask(method, f"/api/runtime{path}", body)
    assert (answer.status, answer.error.field) == (status, field), answer.body
    assert answer.error.request_id == answer.headers["x-request-id"]


async def test_a_nodes_worker_cannot_be_registered_over_http(opened: OpenPlace, nats_server: NatsServer) -> None:
    async with opened() as place, gateway_of(place.bus, nats_server.url, place.settings.node.state_dir) as gateway:
        await place.coordinator()
        await known_worker(place)
        refused = await gateway.ask("POST", "/api/runtime/workers", {"id": "w"})
        assert (refused.status, refused.error.field) == (409, "worker_id")
        assert (await gateway.post("/api/runtime/workers/w/drain"))["detail"] == "drained"
        assert (await gateway.post("/api/runtime/workers/w/resume"))["status"] == "online"
        task = await submitted(gateway)
        await place.until(str(task["id"]), TaskStatus.COMPLETED)
        result = await gateway.get(f"/api/runtime/llm-tasks/{task['id']}/result")
        assert result["result"]["output"] == "say hello"


async def known_worker(place: Place) -> None:
    """Start the worker of a node."""
    await place.worker("w")
    await place.until_known("w", WorkerStatus.ONLINE)


async def test_without_a_coordinator_it_says_so(opened: OpenPlace, nats_server: NatsServer) -> None:
    async with opened() as place, gateway_of(place.bus, nats_server.url, place.settings.node.state_dir) as gateway:
        health = await gateway.get("/api/runtime/health")
        assert (health["status"], health["connections"]) == (
            "degraded",
            {"coordinator": "unavailable", "nats": "connected"},
        )
        answer = await gateway.ask("GET", "/api/runtime/stats")
        assert (answer.status, answer.error.detail) == (503, "no coordinator answers: tasks need one")
        await place.coordinator()
        health = await gateway.get("/api/runtime/health")
        assert (health["status"], health["storage_type"]) == ("ok", place_storage(place))
        assert health["uptime_seconds"] > 0


def place_storage(place: Place) -> str:
    """Return the kind of the place's database."""
    url = place.settings.of(CoordinatorSettings).database_url
    assert url is not None
    return url.reveal().partition(":")[0]
