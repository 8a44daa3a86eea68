"""Tasks among machines that joined: they run with each one's own key, and no member speaks for another or the runtime.

One server with a coordinator; b joined and takes tasks, and c tries with its own real key what it may not.
"""

import json
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from membridge.aio.deadline import Deadline
from membridge.bus.connection import connect
from membridge.bus.options import BusOptions
from membridge.settings import RUNTIME
from schemas import subjects
from schemas.identity import canonical_id
from tests.fixtures.machines import command
from tests.integration.access.sites import SHARED, Attacker, Site, attacker, eventually, shouting_claude, site

TASK = "0f7f2f5e-6a43-4c5c-9d49-0a8a0b3d7a11"


@pytest.fixture
async def place(tmp_path: Path) -> AsyncGenerator[Site]:
    async with site(tmp_path, MEMBRIDGE_COORDINATOR="1", MEMBRIDGE_LOG_LEVEL="debug") as made:
        yield made


@pytest.fixture
def claude(tmp_path: Path) -> Path:
    return shouting_claude(tmp_path)


@pytest.fixture
async def c(place: Site) -> AsyncGenerator[Attacker]:
    async with attacker(place, await place.joined("c"), account=RUNTIME) as made:
        yield made


async def test_a_task_goes_from_one_machine_to_another_and_back(place: Site, claude: Path) -> None:
    b = await place.joined("b", MEMBRIDGE_WORKER="1", MEMBRIDGE_CLAUDE=str(claude))
    c = await place.joined("c")
    await b.start()
    try:
        reply = await command(c, "task", "submit", "hello from c", "--wait")
        assert (reply["task"]["status"], reply["task"]["worker_id"]) == ("completed", "b")
        assert reply["result"]["output"] == "HELLO FROM C"
        # A prompt that JSON makes six times as large goes every step of the way, by keys that may do just that.
        large = place.root / "large.txt"
        large.write_text("\x01" * ((1 << 20) - 2) + "ok", encoding="utf-8")
        sent = await command(c, "task", "submit", f"@{large}", "--wait")
        assert (sent["task"]["status"], sent["task"]["prompt"]) == ("completed", large.read_text("utf-8"))
        assert sent["artifact"]["content"].startswith("\x01\x01")
        code, told = await c.command("task", "logs", reply["task"]["id"])
        assert (code, "claude starts" in told, "completed" in told) == (0, True, True)
        (worker,) = (await command(place.host, "worker"))["workers"]
        assert (worker["id"], worker["status"]) == ("b", "online")
        head = (await command(b, "history"))["records"][0]
        assert (worker["db_sha"], worker["install_method"]) == (head["sha256"], "source")
        assert worker["obs_count"] > 0
        # Presence is in the project too, and says that b takes tasks.
        nodes = {node["node"]: node for node in (await command(place.host, "nodes"))["nodes"]}
        assert nodes["b"]["worker"]["status"] == "online"
        # Nothing that the coordinator does by itself is refused.
        log = place.host.log.read_text()
        for trouble in (
            "permissions violation",
            "expiries not heard",
            "background task failed",
            "leases not reconciled",
        ):
            assert trouble not in log.lower(), trouble
        await operators_of_both_accounts_ask(place)
    finally:
        await b.stop()

    async def offline() -> bool:
        (worker,) = (await command(place.host, "worker"))["workers"]
        return bool(worker["status"] == "offline")

    await eventually(offline, place.host)


async def operators_of_both_accounts_ask(place: Site) -> None:
    """Ask as the stock CLI does with the contexts that are written where each project has an account."""
    written = (await command(place.host, "nats-context"))["contexts"]
    asked = {
        "membridge": f"membridge.{canonical_id(SHARED)}.primary.status",
        "membridge-tasks": "membridge.runtime.stats",
    }
    assert set(written) == set(asked)
    for name, subject in asked.items():
        async with connect(described(Path(written[name])), deadline=Deadline.after(5.0)) as bus:
            assert json.loads((await bus.request(subject, deadline=Deadline.after(5.0))).body)


def described(context: Path) -> BusOptions:
    """Return how the `nats` CLI connects with a context."""
    said = json.loads(context.read_text())
    return BusOptions(
        urls=(said["url"],), name="test", nkey_seed=Path(said["nkey"]), ca_file=Path(said["ca"]),
        inbox_prefix=said["inbox_prefix"],
    )  # fmt: skip


async def test_who_is_revoked_takes_and_gives_no_more_tasks(place: Site, claude: Path) -> None:
    b = await place.joined("b", MEMBRIDGE_WORKER="1", MEMBRIDGE_CLAUDE=str(claude))
    await command(b, "task", "submit", "before")
    await command(place.host, "nodes", "revoke", "b")
    code, output = await b.command("task", "submit", "after")
    assert (code, "refused the credentials" in output) == (1, True)
    # A daemon says by its exit code that a service manager is not to start it again.
    code, output = await b.command("node")
    assert (code, "refused the credentials" in output) == (77, True)


async def test_a_member_speaks_for_itself_only(c: Attacker) -> None:
    for operation in subjects.REPORTING_OPERATIONS:
        assert await c.publish(operation.at(worker="c"))
        assert not await c.publish(operation.at(worker="b"))
        assert not await c.publish(operation.pattern().replace("*", subjects.COORDINATOR))
    assert await c.publish("membridge.worker.c.presence")
    assert not await c.publish("membridge.worker.b.presence")
    assert await c.publish(f"membridge.runtime.task.{TASK}.progress.c")
    for forged in (f"{TASK}.progress.b", f"{TASK}.status.c", f"{TASK}.status.coordinator"):
        assert not await c.publish(f"membridge.runtime.task.{forged}"), forged
    # The subject is its own and the claim inside is another's.
    claim = {"lease_id": TASK, "task_id": TASK, "worker_id": "b"}
    answer = await c.client.request("membridge.runtime.heartbeat.c", json.dumps(claim).encode(), timeout=5)
    assert json.loads(answer.data)["code"] == "forbidden"
    own = await c.client.request(
        "membridge.runtime.heartbeat.c", json.dumps(claim | {"worker_id": "c"}).encode(), timeout=5
    )
    assert json.loads(own.data)["code"] == "lease_lost"


async def test_a_member_gives_no_orders_and_hears_none_of_others(c: Attacker) -> None:
    for operation in subjects.WORKER_OPERATIONS:
        assert await c.hears(operation.at(worker="c"))
        assert not await c.hears(operation.at(worker="b"))
        assert not await c.hears(operation.pattern())
        assert not await c.publish(operation.at(worker="b"))
    assert not await c.publish(subjects.ROLL_CALL)
    for scheduler in ("submit", "report"):
        assert not await c.publish(subjects.fill(subjects.SCHEDULER, operation=scheduler))
    for subject in ("membridge.runtime.submit", "membridge.runtime.report.*", "membridge.worker.>", "_INBOX.>", ">"):
        assert not await c.hears(subject), subject


async def test_a_member_stores_and_reads_nothing_and_is_told_of_no_storing(c: Attacker) -> None:
    for subject in (
        "$KV.leases.x", "$KV.sticky.x", "$KV.scheduling.tasks", "$O.membridge.C.x", "$O.membridge.M.x",
        "$JS.API.DIRECT.GET.TASKS", "$JS.API.STREAM.INFO.TASKS", "$JS.API.STREAM.CREATE.MINE",
        "$JS.API.STREAM.PURGE.TASKS", "$JS.API.CONSUMER.CREATE.TASKS", "$JS.API.STREAM.DELETE.KV_leases",
    ):  # fmt: skip
        assert not await c.publish(subject), subject
        assert not await c.hears(subject)
    # What a member may put into a stream is acknowledged to nobody, so no acknowledgement is sent to another.
    inbox = await c.client.subscribe("_INBOX.c.told")
    assert await c.publish(f"membridge.runtime.task.{TASK}.progress.c", b"{}", reply="_INBOX.c.told")
    await c.client.request("membridge.runtime.stats", b"{}", timeout=5)
    assert inbox.pending_msgs == 0


async def test_an_answer_that_is_sent_elsewhere_is_not_given(place: Site, c: Attacker) -> None:
    before = (await command(place.host, "task"))["tasks"]
    spec = {"context_id": "x", "agent_slug": "a", "prompt": "run me"}
    for target in ("membridge.worker.b.run", "$KV.scheduling.tasks", "membridge.scheduler.submit"):
        assert await c.publish("membridge.runtime.submit", json.dumps(spec).encode(), reply=target)
    answer = await c.client.request("membridge.runtime.stats", b"{}", timeout=5)
    assert json.loads(answer.data)["leader"]
    assert (await command(place.host, "task"))["tasks"] == before
