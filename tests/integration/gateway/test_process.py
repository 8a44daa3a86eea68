"""The gateway as a part of `up` and as a process: its address, its key, its doctor, its rights, its memory."""

import asyncio
import json
import shutil
from pathlib import Path

from membridge.testing.node_process import NodeProcess
from schemas.identity import canonical_id
from tests.fixtures.gateway import SOON
from tests.fixtures.machines import MakeMachine, command
from tests.fixtures.pace import pause, written_to
from tests.fixtures.ports import free_port
from tests.fixtures.toy_web import Toy, ask
from tests.integration.access.sites import SHARED, signed_in, site
from tests.integration.web.test_memory import MOST, resident

P = canonical_id(SHARED)


def settings() -> dict[str, str]:
    """Return the settings of a machine that runs a gateway, and a coordinator for it to ask."""
    port = f"127.0.0.1:{free_port()}"
    return {"MEMBRIDGE_GATEWAY": "1", "MEMBRIDGE_GATEWAY_LISTEN": port, "MEMBRIDGE_COORDINATOR": "1"}


def web_of(machine: NodeProcess) -> Toy:
    """Return where a machine's gateway is."""
    host, _, port = machine.extra["MEMBRIDGE_GATEWAY_LISTEN"].partition(":")
    return Toy(host=host, port=int(port))


async def logged(machine: NodeProcess, text: str) -> None:
    """Wait until a machine wrote a text."""
    async with asyncio.timeout(SOON):
        while text not in machine.log.read_text("utf-8"):
            assert machine.process is None or machine.process.returncode is None, machine.log.read_text("utf-8")
            await written_to(machine.log)


async def test_up_prints_its_address_and_the_first_key_is_made_by_a_command(make_machine: MakeMachine) -> None:
    url = f"nats://127.0.0.1:{free_port()}"
    up = make_machine("a", memory=True, MEMBRIDGE_NATS_URL=url, **settings())
    web = web_of(up)
    await up.start("up")
    await logged(up, f"the console, tasks and memory over HTTP at http://{web.host}:{web.port}\n")
    assert (await ask(web, "GET", "/api/runtime/stats")).status == 200
    checks = {check["name"]: check["finding"] for check in (await command(up, "doctor"))["checks"]}
    assert checks["gateway"] == "ok"
    # Nothing of it needs a key on loopback but what administrators do: the first key is made on the machine.
    assert (await ask(web, "GET", "/api/v1/keys")).status == 401
    issued = await command(up, "api-key", "new", "first")
    async with asyncio.timeout(SOON):
        while (listed := await ask(web, "GET", "/api/v1/keys", key=issued["secret"])).status != 200:
            await pause()
    shown = json.loads(listed.body)["keys"]
    assert [(one["id"], one["role"], one["scopes"]) for one in shown] == [(issued["key"]["id"], "admin", ["*"])]
    assert (await command(up, "api-key"))["keys"] == shown
    assert (await command(up, "api-key", "revoke", issued["key"]["id"]))["revoked_at"]
    async with asyncio.timeout(SOON):
        while (await ask(web, "GET", "/api/v1/keys", key=issued["secret"])).status != 401:
            await pause()
    code, told = await up.command("api-key", "revoke", "nonsense")
    assert (code, "id" in told) == (1, True)
    # A port that is taken is named, and the node runs all the same.
    other = make_machine("b", memory=True, **{**settings(), "MEMBRIDGE_GATEWAY_LISTEN": f"{web.host}:{web.port}"})
    code, told = await other.command("gateway")
    assert (code, f"cannot listen at {web.host}:{web.port}" in told) == (1, True)


async def test_an_idle_gateway_takes_at_most_45_mib(make_machine: MakeMachine) -> None:
    machine = make_machine("a", **settings())
    await machine.start("gateway")
    web = web_of(machine)
    await logged(machine, '"event":"gateway ready"')
    assert (await ask(web, "GET", "/ready")).status == 200
    assert machine.process is not None
    assert resident(machine.process.pid) <= MOST


async def test_it_refuses_to_be_open_to_the_network(make_machine: MakeMachine) -> None:
    machine = make_machine("a", MEMBRIDGE_GATEWAY_LISTEN="0.0.0.0:8733", MEMBRIDGE_DEV="1")
    code, told = await machine.command("gateway")
    assert code == 1
    assert "MEMBRIDGE_DEV turns authentication off, and the gateway is reachable from elsewhere: 0.0.0.0:8733" in told


async def test_its_keys_of_a_server_with_accounts_reach_what_it_needs_and_nothing_else(tmp_path: Path) -> None:
    async with site(tmp_path, **settings()) as place:
        web = web_of(place.host)
        await logged(place.host, '"event":"listening"')
        assert (await ask(web, "GET", "/api/runtime/stats")).status == 200
        code, told = await place.host.command("api-key", "new", "first")
        assert code == 0, told
        keys = place.host.home / ".local" / "state" / "membridge" / "access" / "keys"
        (authority,) = keys.parent.glob("tls/authority.pem")
        shutil.copy(authority, tmp_path)
        runtime = Path(shutil.copy(keys / "gateway.seed", tmp_path / "runtime.seed"))
        project = Path(shutil.copy(keys / "gateway" / f"{P}.seed", tmp_path / "project.seed"))
        async with signed_in(place, runtime, "gateway") as service:
            for subject in (
                "membridge.runtime.submit", "membridge.runtime.lease.w", "$JS.API.DIRECT.GET.TASKS",
                "membridge.runtime.stop_task_job", "$JS.API.DIRECT.GET.KV_task_jobs",
            ):  # fmt: skip
                assert await service.publish(subject), subject
            assert await service.hears("membridge.runtime.task.*.*.*")
            assert await service.hears("$KV.task_jobs.>")
            for subject in (
                "$KV.task_jobs.x", "$KV.leases.x",
                "membridge.worker.a.run", "membridge.worker.a.presence", "membridge.runtime.roll_call",
                "$JS.API.STREAM.PURGE.TASKS", "$JS.API.CONSUMER.CREATE.TASKS", "$JS.API.DIRECT.GET.KV_leases",
                "membridge.scheduler.submit", "$JS.API.STREAM.DELETE.KV_api_keys",
            ):  # fmt: skip
                assert not await service.publish(subject), subject
            for subject in ("membridge.runtime.submit", "membridge.worker.*.run", "$KV.leases.>", "_INBOX.>", ">"):
                assert not await service.hears(subject), subject
        async with signed_in(place, project, "gateway") as service:
            answer = await service.client.request(f"membridge.{P}.primary.status", b"{}", timeout=20)
            assert json.loads(answer.data)["node"] == "a"
            for subject in ("$JS.API.DIRECT.GET.KV_nodes.$KV.nodes.a", "$JS.API.DIRECT.GET.EVENTS"):
                assert await service.publish(subject), subject
            for subject in ("$KV.nodes.>", "$KV.settings.>", f"membridge.{P}.event.*.*"):
                assert await service.hears(subject), subject
            for subject in (
                f"$KV.heads.{P}", f"$KV.settings.{P}", "$KV.nodes.a", f"membridge.{P}.event.x.a", "$O.membridge.M.x",
                "$JS.API.DIRECT.GET.KV_heads", "$JS.API.DIRECT.GET.OBJ_membridge", "membridge.daemon.node.a.revoked",
                "$JS.API.STREAM.PURGE.EVENTS",
            ):  # fmt: skip
                assert not await service.publish(subject), subject
            assert not await service.hears(f"membridge.{P}.node.a.push")
        log = place.host.log.read_text("utf-8")
        assert not [event for event in ("gateway not running", "bucket cannot be read") if event in log]
