"""A service that another distribution brings runs beside the node: it is found by its entry point and nothing else."""

import asyncio
import json
import shutil
import sqlite3
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from membridge.aio.deadline import Deadline
from membridge.bus.connection import connect
from membridge.bus.options import BusOptions
from membridge.settings import RUNTIME, loopback_key
from membridge.testing.node_process import NodeProcess
from schemas import subjects
from tests.fixtures.machines import MakeMachine, command
from tests.fixtures.pace import pause
from tests.fixtures.ports import free_port
from tests.integration.access.sites import Attacker, Site, attacker, seed_of, signed_in, site

TOY = Path(__file__).parents[2] / "fixtures" / "toy"
#: Its distribution is on the path of each process of the machine, as an installed one is.
INSTALLED = {"PYTHONPATH": str(TOY), "MEMBRIDGE_TOY": "1"}
#: Seconds until a service that was reported has come up.
PATIENCE = 60.0


def test_it_is_as_small_as_a_service_can_be() -> None:
    assert len((TOY / "toy.py").read_text("utf-8").splitlines()) <= 60


async def test_up_starts_it_once_its_database_opens_and_the_others_run_meanwhile(make_machine: MakeMachine) -> None:
    url = f"nats://127.0.0.1:{free_port()}"
    up = make_machine("a", memory=True, MEMBRIDGE_NATS_URL=url, MEMBRIDGE_COORDINATOR="1", **INSTALLED)
    state = up.home / ".local" / "state" / "membridge"
    database = state / "tasks.db"
    database.mkdir(parents=True)
    await up.start("up")
    await until_ok(lambda: up.command("status"), up)
    # Both are reported, and the node works.
    async with asyncio.timeout(PATIENCE):
        while not {"toy not running", "coordinator not running"} <= reported(up):
            await pause()
    assert (await up.command("doctor"))[0] == 1
    database.rmdir()
    await until_ok(lambda: up.command("doctor"), up)
    checks = {check["name"]: check["finding"] for check in (await command(up, "doctor"))["checks"]}
    assert (checks["toy"], checks["coordinator"]) == ("ok", "ok")
    # It answers over NATS, from a table that its own migration made.
    options = BusOptions(urls=(url,), name="test", nkey_seed=loopback_key(state))
    async with connect(options, deadline=Deadline.after(5.0)) as bus:
        for note in ("one", "two"):
            body = json.dumps({"notes": [note]}).encode()
            await bus.request("membridge.toy.add", body, deadline=Deadline.after(5.0))
        shown = await bus.request("membridge.toy.show", b"{}", deadline=Deadline.after(5.0))
        newest = await bus.request("$JS.API.DIRECT.GET.KV_toy.$KV.toy.newest", deadline=Deadline.after(5.0))
    assert (json.loads(shown.body), json.loads(newest.body)) == ({"notes": ["one", "two"]}, {"notes": ["two"]})
    await up.stop()
    # Two services share the database, and each has its own line of migrations.
    with sqlite3.connect(database) as rows:
        assert rows.execute("SELECT version_num FROM alembic_version_toy").fetchall() == [("toy1",)]
        assert rows.execute("SELECT count(*) FROM tasks").fetchall() == [(0,)]
        assert "toy1" not in str(rows.execute("SELECT version_num FROM alembic_version").fetchall())
    rows.close()


async def test_it_has_a_unit_a_command_and_settings(make_machine: MakeMachine) -> None:
    machine = make_machine("a", **INSTALLED)
    units = {unit["name"]: unit for unit in (await command(machine, "units"))["units"]}
    assert units["membridge-toy.service"]["wanted"] is True
    assert "ExecStart=%h/.local/bin/membridge toy\n" in units["membridge-toy.service"]["text"]
    assert "membridge-toy.service" in units["membridge-node.service"]["text"]
    shown = {line["key"]: line for line in (await command(machine, "config"))["settings"]}
    assert (shown["toy.enabled"]["value"], shown["toy.enabled"]["origin"]) == ("true", "env MEMBRIDGE_TOY")
    code, told = await machine.command("toy", "--help")
    assert (code, "Run a toy until Ctrl-C." in told) == (0, True)
    # Without its distribution the variable is a slip, and there is no such command.
    gone = make_machine("b", MEMBRIDGE_TOY="1")
    assert "MEMBRIDGE_TOY is not a setting" in str((await command(gone, "config"))["warnings"])
    assert (await gone.command("toy"))[0] == 1


@pytest.fixture
async def place(tmp_path: Path) -> AsyncGenerator[Site]:
    async with site(tmp_path, **INSTALLED) as made:
        yield made


async def test_it_may_use_what_it_declares_and_nothing_else(place: Site, tmp_path: Path) -> None:
    c = await place.joined("c")
    # A member may ask it, and speaks for nobody else there.
    async with attacker(place, c, account=RUNTIME) as member:
        body = json.dumps({"notes": ["from c"]}).encode()
        await asked(member, "membridge.toy.add", body)
        assert await asked(member, "membridge.toy.show", b"{}") == {"notes": ["from c"]}
        assert not await member.hears("membridge.toy.show")
        assert not await member.publish("$KV.toy.newest")
    keys = place.host.home / ".local" / "state" / "membridge" / "access" / "keys"
    own = Path(shutil.copy(keys / "toy.seed", tmp_path / "toy.seed"))
    shutil.copy(seed_of(c, RUNTIME).with_name("authority.pem"), tmp_path)
    async with signed_in(place, own, "toy") as toy:
        for subject in ("membridge.toy.add", "membridge.toy.show", "$KV.toy.>"):
            assert await toy.hears(subject), subject
        assert await toy.last("toy", "newest")
        for subject in ("membridge.toy.>", "membridge.>", "$KV.leases.>", "_INBOX.>", "membridge.runtime.submit", ">"):
            assert not await toy.hears(subject), subject
        for subject in (
            "$KV.leases.x", "$JS.API.DIRECT.GET.KV_leases", "$JS.API.STREAM.DELETE.KV_toy", "$O.membridge.M.x",
            "membridge.runtime.submit", "membridge.runtime.stats", subjects.ROLL_CALL, "$JS.API.STREAM.NAMES",
        ):  # fmt: skip
            assert not await toy.publish(subject), subject
    log = place.host.log.read_text("utf-8")
    assert "toy not running" not in log


def reported(machine: NodeProcess) -> set[str]:
    """Return the events of warnings and errors in a machine's log."""
    lines = (json.loads(line) for line in machine.log.read_text("utf-8").splitlines() if line.startswith("{"))
    return {line["event"] for line in lines if line["level"] in {"warning", "error"}}


async def asked(member: Attacker, subject: str, body: bytes) -> Any:
    """Return the answer to a member's request."""
    answer = await member.client.request(subject, body, timeout=5)
    assert "Nats-Service-Error" not in (answer.headers or {}), answer.headers
    return json.loads(answer.data)


async def until_ok(run: Any, machine: Any) -> None:
    """Run a command until it succeeds."""
    async with asyncio.timeout(PATIENCE):
        while (await run())[0]:
            assert machine.process.returncode is None, machine.log.read_text("utf-8")
            await pause()
