"""Front ends that were let in: a reader looks and changes nothing, a gateway acts for people, neither is a node."""

import asyncio
import json
import stat
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from membridge.settings import RUNTIME
from schemas.identity import canonical_id
from tests.fixtures.machines import command
from tests.integration.access.sites import OTHER, SHARED, Site, eventually, signed_in, site

P, Q = canonical_id(SHARED), canonical_id(OTHER)
SPEC = {"context_id": "x", "agent_slug": "a", "prompt": "p"}


@pytest.fixture
async def place(tmp_path: Path) -> AsyncGenerator[Site]:
    async with site(tmp_path, MEMBRIDGE_COORDINATOR="1") as made:
        yield made


async def admitted(place: Site, name: str, role: str, *arguments: str) -> Path:
    folder = place.root / name
    await command(place.host, "nodes", "admit", name, "--role", role, "--to", str(folder), *arguments)
    return folder


async def test_a_reader_hears_and_asks_and_changes_nothing(place: Site) -> None:
    folder = await admitted(place, "screen", "reader")
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o600}
    async with signed_in(place, folder / f"{P}.seed", "screen") as reader:
        answer = await reader.client.request(f"membridge.{P}.primary.status", b"{}", timeout=5)
        assert json.loads(answer.data)["node"] == "a"
        answer = await reader.client.request(f"membridge.{P}.nodes", b"", timeout=5)
        assert [node["node"] for node in json.loads(answer.data)["nodes"]] == ["a"]
        assert await reader.hears(f"membridge.{P}.event.*.*")
        for subject in (
            f"membridge.{P}.primary.push", f"membridge.{P}.primary.restore", f"membridge.{P}.leadership.select",
            f"membridge.{P}.node.a.status", f"membridge.{P}.event.session_started.screen", f"$KV.heads.{P}",
            "$KV.nodes.screen", "$JS.API.DIRECT.GET.KV_heads", "$O.membridge.C.x", "_INBOX.a.x",
        ):  # fmt: skip
            assert not await reader.publish(subject), subject
        for subject in (f"membridge.{P}.node.a.status", "_INBOX.a.>", "$KV.>", ">"):
            assert not await reader.hears(subject), subject
    async with signed_in(place, folder / f"{RUNTIME}.seed", "screen") as reader:
        answer = await reader.client.request("membridge.runtime.stats", b"{}", timeout=5)
        assert json.loads(answer.data)["leader"]
        assert await reader.hears("membridge.runtime.task.*.*.*")
        for name in (
            "submit",
            "cancel",
            "requeue",
            "drain",
            "remove_worker",
            "report.screen",
            "lease.screen",
            "heartbeat.a",
        ):
            assert not await reader.publish(f"membridge.runtime.{name}"), name
        assert not await reader.hears("membridge.worker.screen.run")


async def test_a_gateway_acts_for_people_and_is_no_node(place: Site) -> None:
    folder = await admitted(place, "gate", "gateway", "--project", SHARED)
    assert not (folder / f"{Q}.seed").exists()
    async with signed_in(place, folder / f"{P}.seed", "gate") as gateway:
        answer = await gateway.client.request(f"membridge.{P}.primary.push", b"{}", timeout=20)
        assert json.loads(answer.data)["outcome"] in {"committed", "unchanged"}
        for subject in (f"$KV.heads.{P}", f"membridge.{P}.proposal.gate", "$KV.nodes.gate", "_INBOX.a.x"):
            assert not await gateway.publish(subject), subject
        # That a machine is revoked is said by the server alone.
        assert not await gateway.publish("membridge.daemon.node.b.revoked")
        assert not await gateway.hears(f"membridge.{P}.primary.push")
    async with signed_in(place, folder / f"{RUNTIME}.seed", "gate") as gateway:
        answer = await gateway.client.request("membridge.runtime.submit", json.dumps(SPEC).encode(), timeout=5)
        assert json.loads(answer.data)["status"] == "queued"
        # It speaks for workers that reach it over HTTP, under leases that it asked for.
        for name in ("http-1", "http-2"):
            body = json.dumps({"worker_id": name, "labels": ["nobody-asks-for-it"]}).encode()
            answer = await gateway.client.request(f"membridge.runtime.lease.{name}", body, timeout=5)
            assert json.loads(answer.data).keys() == {"order", "reason"}
        assert not await gateway.hears("membridge.worker.gate.run")
        assert not await gateway.publish("membridge.worker.gate.presence")


async def test_a_machine_does_what_its_operator_or_a_gateway_asks_and_no_other_member(place: Site) -> None:
    b = await place.joined("b")
    folder = await admitted(place, "gate", "gateway", "--project", SHARED)
    await b.start()
    try:

        async def answers() -> bool:
            code, _ = await place.host.command("pull", "--node", "b")
            return code == 0

        await eventually(answers, place.host)
        pushed = await command(place.host, "push", "--node", "b")
        assert pushed["outcome"] in {"proposed", "unchanged"}
        code, output = await place.host.command("doctor", "--node", "b", "--json")
        assert {"database", "nats"} <= {check["name"] for check in json.loads(output)["checks"]}, (code, output)
        code, output = await place.host.command("push", "--node", "nobody")
        assert (code, "no daemon of node nobody answers" in output) == (1, True)
        jobs = (await command(place.host, "jobs"))["jobs"]
        (job,) = (job for job in jobs if job["id"] == pushed["job_id"])
        assert (job["node"], job["requested_by"].endswith("@a")) == ("b", True)
        # Another member is refused, and told so at once.
        async with asyncio.timeout(60.0):
            code, output = await b.command("push", "--node", "a")
        assert (code, "may not send requests" in output) == (1, True)
        async with signed_in(place, folder / f"{P}.seed", "gate") as gateway:
            answer = await gateway.client.request(f"membridge.{P}.node.b.pull", b"{}", timeout=20)
            assert json.loads(answer.data)["outcome"] == "unchanged"
            answer = await gateway.client.request("membridge.daemon.node.b.projects", b"{}", timeout=20)
            assert [one["name"] for one in json.loads(answer.data)["projects"]] == [SHARED]
    finally:
        await b.stop()


async def test_a_front_end_is_listed_written_down_and_revoked(place: Site) -> None:
    folder = await admitted(place, "screen", "reader")
    # The same again, as after a lost answer, changes nothing; another of the name is refused.
    await admitted(place, "screen", "reader")
    code, output = await place.host.command("nodes", "admit", "screen", "--to", str(place.root / "more"))
    assert (code, "already a member screen" in output) == (1, True)
    code, output = await place.host.command("nodes", "admit", "../screen")
    assert (code, "is not allowed" in output) == (1, True)
    code, output = await place.host.command("nodes", "admit", "coordinator", "--to", str(place.root / "more"))
    assert (code, "is reserved" in output) == (1, True)
    members = {one["node"]: one["role"] for one in (await command(place.host, "nodes", "members"))["members"]}
    assert members == {"a": "node", "screen": "reader"}
    assert [one["action"] for one in (await command(place.host, "nodes", "log"))["records"]] == ["admitted"]
    async with signed_in(place, folder / f"{P}.seed", "screen") as reader:
        await command(place.host, "nodes", "revoke", "screen")
        with pytest.raises(Exception, match=r"(?i)clos|time"):
            await reader.client.request(f"membridge.{P}.primary.status", b"{}", timeout=2)
    code, output = await place.host.command("nodes", "admit", "screen", "--to", str(folder))
    assert (code, "--to" in output) == (1, True)
