"""Projects over HTTP on a real node: both surfaces of old clients, the agent's face, and the history of a memory."""

import asyncio
import sqlite3
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from aiohttp import web

from membridge.bus.connection import Bus
from membridge.testing.node_process import NodeProcess
from schemas.commits import MOST_PART
from schemas.identity import canonical_id
from schemas.web import Role
from services.gateway.routes.agent import LINES, limited
from tests.fixtures.gateway import SOON, Gateway, gateway_of
from tests.fixtures.machines import PROJECT, MakeMachine
from tests.fixtures.pace import pause

CID = canonical_id(PROJECT)
ADMIN = "a" * 24
AS_ADMIN = [f"X-MEMBRIDGE-ADMIN: {ADMIN}"]


@dataclass(frozen=True)
class Served:
    """A node with the sample memory, and a gateway of the same machine."""

    node: NodeProcess
    gateway: Gateway


@pytest.fixture
async def served(bus: Bus, make_machine: MakeMachine, nats_url: str) -> AsyncGenerator[Served]:
    node = make_machine("a", memory=True)
    await node.start()
    async with gateway_of(bus, nats_url, node.home, MEMBRIDGE_ADMIN_KEY=ADMIN) as gateway:
        async with asyncio.timeout(SOON):
            while True:
                listed = (await gateway.get("/api/membridge/projects"))["projects"]
                if listed and listed[0]["primary_node_id"] == "a" and listed[0]["head_seq"] >= 1:
                    break
                await pause()
        yield Served(node, gateway)


async def test_projects_nodes_and_leadership(served: Served) -> None:
    gateway = served.gateway
    health = await gateway.get("/api/membridge/health")
    assert (health["status"], health["projects"], health["nodes"]) == ("ok", 1, 1)
    (project,) = (await gateway.get("/api/membridge/projects"))["projects"]
    assert (project["canonical_id"], project["name"], project["nodes"]) == (CID, PROJECT, ["a"])
    # By its id and by its name.
    for name in (CID, PROJECT):
        leader = await gateway.get(f"/api/membridge/projects/{name}/leadership")
        assert (leader["canonical_id"], leader["primary_node_id"], leader["needs_ui_selection"]) == (CID, "a", False)
        nodes = await gateway.get(f"/api/membridge/projects/{name}/nodes")
        assert [one["node"] for one in nodes["nodes"]] == ["a"]
    for field in ("node", "primary_node_id"):
        chosen = await gateway.post(f"/api/membridge/projects/{CID}/leadership/select", {field: "a"})
        assert chosen["preferred"] == "a"
    for path in ("/api/membridge/projects/nobody/nodes", "/api/membridge/projects/0123456789abcdef/leadership"):
        assert (await gateway.ask("GET", path)).status == 404
    empty = await gateway.ask("POST", f"/api/membridge/projects/{CID}/leadership/select", {})
    assert (empty.status, empty.error.field) == (400, "node")
    # The same for old clients of the control plane, who show the key of administrators.
    assert (await gateway.ask("GET", f"/projects/{CID}/nodes")).status == 401
    assert (await gateway.get(f"/projects/{CID}/leadership", headers=AS_ADMIN))["primary_node_id"] == "a"
    select = await gateway.post(f"/projects/{CID}/leadership/select", {"node": "a"}, headers=AS_ADMIN)
    assert select["preferred"] == "a"


async def test_history_diff_restore_backups_conflicts_and_jobs(served: Served) -> None:
    gateway, at = served.gateway, f"/api/projects/{CID}"
    status = await gateway.get(f"{at}/status")
    assert (status["node"], status["project"]["name"]) == ("a", PROJECT)
    first = (await gateway.get(f"{at}/snapshots"))["records"][0]["seq"]
    with sqlite3.connect(served.node.database) as rows:
        rows.execute("DELETE FROM user_prompts WHERE id = (SELECT max(id) FROM user_prompts)")
    rows.close()
    pushed = await gateway.post(f"{at}/push", {"allow_shrink": True})
    assert pushed["outcome"] in {"committed", "unchanged"}
    head = (await gateway.get(f"{at}/snapshots?limit=1"))["records"][0]["seq"]
    assert head > first
    changed = await gateway.get(f"{at}/diff?older={first}&newer={head}")
    assert [(one["table"], one["went"]) for one in changed["tables"]] == [("user_prompts", 1)]
    preview = await gateway.post(f"{at}/restore", {"state": str(first)})
    assert (preview["applied"], preview["commits"]) == (False, True)
    restored = await gateway.post(f"{at}/restore", {"state": str(first), "apply": True})
    assert (restored["applied"], restored["seq"]) == (True, head + 1)
    backups = (await gateway.get(f"{at}/backups"))["backups"]
    assert backups
    unnamed = await gateway.ask("POST", f"{at}/backups/restore", {"backup": backups[0]["id"]})
    assert (unnamed.status, unnamed.error.field) == (400, "node")
    back = await gateway.post(f"{at}/backups/restore", {"backup": backups[0]["id"], "node": "a"})
    assert (back["applied"], [one["table"] for one in back["tables"]]) == (False, ["user_prompts"])
    assert (await gateway.get(f"{at}/conflicts"))["conflicts"] == []
    assert (await gateway.post(f"{at}/quarantine"))["items"] == []
    tags = await gateway.post(f"{at}/tags", {"action": "set", "name": "good", "state": str(first)})
    assert [(one["name"], one["seq"]) for one in tags["tags"]] == [("good", first)]
    jobs = (await gateway.get(f"{at}/jobs?node=a"))["jobs"]
    assert {"push", "restore"} <= {job["kind"] for job in jobs}
    by = next(job["requested_by"] for job in jobs if job["id"] == restored["job_id"])
    assert by == "open@gateway"
    assert (await gateway.get(f"{at}/jobs/{restored['job_id']}"))["state"] == "done"
    pulled = await gateway.post(f"{at}/pull", {"node": "a"})
    assert pulled["seq"] == head + 1
    for path in (f"{at}/snapshots?node=nobody", f"{at}/doctor?node=b"):
        assert (await gateway.ask("GET", path)).status == 404
    assert (await gateway.ask("GET", f"{at}/snapshots?node=a.b")).status == 400
    assert (await gateway.ask("GET", f"{at}/jobs/nothing")).status == 404
    assert (await gateway.ask("GET", f"{at}/diff?older=99&newer=head")).status == 404


async def test_the_control_plane_registers_syncs_and_lists(served: Served) -> None:
    gateway = served.gateway

    async def get(path: str) -> dict[str, object]:
        return await gateway.get(path, headers=AS_ADMIN)  # type: ignore[no-any-return]

    assert [one["name"] for one in (await get("/projects"))["projects"]] == [PROJECT]  # type: ignore[index,attr-defined]
    database = str(served.node.home / "second.db")
    added = await gateway.post("/projects", {"name": "second", "database": database}, status=201, headers=AS_ADMIN)
    assert {one["name"] for one in added["projects"]} == {PROJECT, "second"}
    removed = await gateway.delete("/projects/second", headers=AS_ADMIN)
    assert removed["name"] == "second"
    # Machines: nodes by themselves, others by registration.
    agent = {"name": "old-1", "url": "http://10.0.0.9:8001"}
    assert (await gateway.post("/agents", agent, status=201, headers=AS_ADMIN))["status"] == "offline"
    beat = {"node_id": "old-1", "projects": [PROJECT, "unknown"], "version": "0.3"}
    told = await gateway.post("/agent/heartbeat", beat, headers=AS_ADMIN)
    assert [(one["canonical_id"], one["primary_node_id"]) for one in told["leadership"]] == [(CID, "a")]
    agents = (await get("/agents"))["agents"]
    assert [(one["name"], one["kind"], one["status"]) for one in agents] == [  # type: ignore[attr-defined]
        ("a", "node", "online"),
        ("old-1", "agent", "online"),
    ]
    taken = await gateway.ask("POST", "/agents", {"name": "a"}, headers=AS_ADMIN)
    assert (taken.status, taken.error.field) == (409, "name")
    assert (await gateway.delete("/agents/old-1", headers=AS_ADMIN))["name"] == "old-1"
    assert (await gateway.ask("DELETE", "/agents/old-1", headers=AS_ADMIN)).status == 404
    # The primary answers once its duties are done; until then the answer is that it does not.
    async with asyncio.timeout(SOON):
        while (await gateway.ask("POST", "/sync/pull", {"project": PROJECT}, headers=AS_ADMIN)).status == 503:
            await pause()
    for what in ("push", "pull"):
        synced = await gateway.post(f"/sync/{what}", {"project": PROJECT}, headers=AS_ADMIN)
        assert (synced["ok"], [one["agent"] for one in synced["results"]]) == (True, ["a"])
    away = await gateway.post("/sync/pull", {"project": PROJECT, "agent": "b"}, headers=AS_ADMIN)
    assert (away["ok"], away["results"][0]["outcome"]) == (False, "not_found")
    jobs = (await gateway.get("/jobs", headers=AS_ADMIN))["jobs"]
    assert {job["project"] for job in jobs} == {CID}
    assert (await gateway.get(f"/jobs/{jobs[0]['id']}", headers=AS_ADMIN))["id"] == jobs[0]["id"]
    assert (await gateway.ask("GET", "/jobs/nothing", headers=AS_ADMIN)).status == 404


async def test_the_agents_face_is_this_machines_node(served: Served) -> None:
    gateway = served.gateway
    status = await gateway.get("/status", headers=AS_ADMIN)
    assert (status["status"], status["agent"], [one["name"] for one in status["projects"]]) == ("ok", "a", [PROJECT])
    pushed = await gateway.post("/push", {"project": PROJECT}, headers=AS_ADMIN)
    assert (pushed["ok"], pushed["returncode"], pushed["dryrun"]) == (True, 0, False)
    assert "outcome: unchanged" in pushed["stdout"]
    examined = await gateway.post("/doctor", headers=AS_ADMIN)
    assert "ok  nats: " in examined["stdout"]
    checks = (await gateway.get("/doctor", headers=AS_ADMIN))["checks"]
    assert "nats" in {check["name"] for check in checks}
    # Without a key a program of this machine may register a project, and nothing else of this.
    assert (await gateway.ask("POST", "/push")).status == 401
    body = {"name": "second", "database": str(served.node.home / "second.db"), "node": "elsewhere"}
    added = await gateway.post("/register_project", body, status=201)
    assert {one["name"] for one in added["projects"]} == {PROJECT, "second"}
    foreign = await gateway.ask("POST", "/register_project", body, headers=["Origin: http://evil.example"])
    assert foreign.status == 403


async def test_on_a_dry_run_the_agent_answers_without_acting(
    bus: Bus, nats_url: str, make_machine: MakeMachine
) -> None:
    home = make_machine("a").home
    environment = {"MEMBRIDGE_ADMIN_KEY": ADMIN, "MEMBRIDGE_AGENT_DRYRUN": "1"}
    async with gateway_of(bus, nats_url, home, **environment) as gateway:
        for what in ("push", "pull", "doctor"):
            told = await gateway.post(f"/{what}", headers=AS_ADMIN)
            assert (told["ok"], told["dryrun"], told["stdout"]) == (True, True, f"dry run: {what}")
        assert (await gateway.post("/register_project", {"name": "x"}, status=201))["projects"] == []
        assert (await gateway.get("/status", headers=AS_ADMIN))["status"] == "offline"


def test_an_output_has_its_last_lines() -> None:
    assert limited("a\nb") == "a\nb"
    long = limited("\n".join(str(number) for number in range(1_000))).splitlines()
    assert (len(long), long[0], long[-1]) == (LINES, "… 801 lines before", "999")


@asynccontextmanager
async def answering(status: int, body: bytes) -> AsyncGenerator[str]:
    """Run a server that answers everything so; yield its address."""

    async def answer(_: web.BaseRequest) -> web.Response:
        return web.Response(status=status, body=body)

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield site.name
    finally:
        await runner.cleanup()


async def test_another_server_answers_where_one_is_configured(served: Served, bus: Bus, nats_url: str) -> None:
    other = served.gateway
    url = f"http://{other.where.host}:{other.where.port}"
    # A gateway of another system would have another NATS; here it is the same, so only the way differs.
    async with gateway_of(bus, nats_url, served.node.home) as gateway:
        nothing = await gateway.get("/api/runtime/config")
        assert (nothing["server_url"], nothing["source"]) == ("", "none")
        assert (await gateway.post("/api/runtime/test-connection"))["ok"] is False
        for text in ("ftp://x", "http://a..b"):
            wrong = await gateway.ask("POST", "/api/runtime/config", {"server_url": text})
            assert (wrong.status, wrong.error.field) == (400, "server_url")
        # As people write it, without a scheme.
        without = f"{other.where.host}:{other.where.port}/"
        shown = await gateway.post("/api/runtime/config", {"server_url": without, "admin_key": ADMIN})
        assert (shown["server_url"], shown["admin_key"], shown["source"]) == (url, "…aaaa", "console")
        assert (await gateway.post("/api/runtime/test-connection"))["detail"] == "connected"
        projects = (await gateway.get("/api/membridge/projects"))["projects"]
        assert [one["canonical_id"] for one in projects] == [CID]
        leader = await gateway.get(f"/api/membridge/projects/{CID}/leadership")
        assert leader["primary_node_id"] == "a"
        chosen = await gateway.post(f"/api/membridge/projects/{CID}/leadership/select", {"node": "a"})
        assert chosen["preferred"] == "a"
        assert (await gateway.ask("GET", "/api/membridge/projects/nobody/nodes")).status == 404
        # It refused that, so it answers.
        assert (await gateway.get("/api/runtime/health"))["connections"]["server"] == "connected"
        # The key stays with its server: another address gets none.
        moved = await gateway.post("/api/runtime/config", {"server_url": "http://127.0.0.1:9"})
        assert moved["admin_key"] == ""
        away = await gateway.ask("GET", "/api/membridge/projects")
        assert (away.status, away.error.error) == (503, "unavailable")
        for said in (
            (await gateway.get("/api/runtime/config"))["connection"],
            (await gateway.get("/api/runtime/health"))["connections"]["server"],
            (await gateway.post("/api/runtime/test-connection"))["detail"],
        ):
            assert said.startswith("http://127.0.0.1:9/")
            assert "does not answer" in said
        # A server that is no Membridge, and one that refuses the key.
        for status, body in ((404, b"<html>"), (401, b'{"detail": "no"}')):
            async with answering(status, body) as elsewhere:
                await gateway.post("/api/runtime/config", {"server_url": elsewhere})
                assert (await gateway.get("/api/runtime/config"))["connection"] == ""
                assert (await gateway.get("/api/runtime/health"))["connections"]["server"] == "unknown"
                await gateway.ask("GET", "/api/membridge/projects")
                said = (await gateway.get("/api/runtime/config"))["connection"]
                assert said == f"{elsewhere} answers {status}"
        # It is up again: the next request says so.
        await gateway.post("/api/runtime/config", {"server_url": url, "admin_key": ADMIN})
        await gateway.get("/api/membridge/projects")
        assert (await gateway.get("/api/runtime/config"))["connection"] == "connected"
        assert (await gateway.post("/api/runtime/config", {}))["source"] == "console"
        assert (await gateway.get("/api/membridge/health"))["projects"] == 1


def content(path: Path) -> bytes:
    return path.read_bytes()


async def test_an_extracted_state_is_downloaded_as_it_is_on_the_node_and_no_other_file_is(served: Served) -> None:
    gateway, at = served.gateway, f"/api/projects/{CID}"
    file = await gateway.post(f"{at}/extract", {"state": "head"})
    path = Path(file["path"])
    answer = await gateway.ask("GET", f"{at}/extracted/{file['name']}?node=a")
    assert answer.status == 200
    assert answer.body == content(path)
    assert len(answer.body) == file["size_bytes"] > MOST_PART
    assert answer.headers["content-disposition"] == f'attachment; filename="{file["name"]}"'
    # Only names of such files are names, and a link is none of them.
    secret = path.with_name("1-00000000.db")
    secret.symlink_to(served.node.database)
    for name, status in (
        ("..%2f..%2fconfig.toml", 400), ("%2e%2e", 400), ("claude-mem.db", 400), ("1-00000000.db", 404),
        ("99-0a1b2c3d.db", 404), (f"{file['name']}%00", 400),
    ):  # fmt: skip
        refused = await gateway.ask("GET", f"{at}/extracted/{name}")
        assert refused.status == status, (name, refused.body)
        assert b"SQLite" not in refused.body
    reader = await gateway.key(Role.READER, "memory")
    assert (await gateway.ask("GET", f"{at}/extracted/{file['name']}", key=reader)).status == 403
