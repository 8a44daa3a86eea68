"""A service that another distribution brings runs beside the node: it is found by its entry point and nothing else."""

import asyncio
import json
import shutil
import sqlite3
import time
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest

from membridge.aio.deadline import Deadline
from membridge.bus.connection import Bus, connect
from membridge.bus.kv import Kv
from membridge.bus.options import BusOptions
from membridge.settings import RUNTIME, loopback_key
from membridge.testing.node_process import NodeProcess
from schemas import buckets, subjects
from schemas.web import IssuedKey, IssueKeyRequest, Role
from services.web import keys
from services.web.identity import ANYBODY
from services.web.keys import Keyring
from tests.fixtures.machines import MakeMachine, command
from tests.fixtures.pace import pause, written_to
from tests.fixtures.ports import free_port
from tests.fixtures.toy_web import Toy, ask, begun, parsed
from tests.integration.access.sites import Attacker, Site, attacker, seed_of, signed_in, site

TOY = Path(__file__).parents[2] / "fixtures" / "toy"
AUDIT = subjects.WEB_AUDIT
#: Seconds until a service that was reported has come up.
PATIENCE = 60.0


def installed() -> dict[str, str]:
    """Return the settings of a machine that has it: its distribution is on the path of each process."""
    return {"PYTHONPATH": str(TOY), "MEMBRIDGE_TOY": "1", "MEMBRIDGE_TOY_LISTEN": f"127.0.0.1:{free_port()}"}


def test_it_is_as_small_as_a_service_can_be() -> None:
    written = [line for line in (TOY / "toy.py").read_text("utf-8").splitlines() if line]
    assert len(written) <= 60


async def test_up_starts_it_once_its_database_opens_and_the_others_run_meanwhile(make_machine: MakeMachine) -> None:
    url = f"nats://127.0.0.1:{free_port()}"
    up = make_machine("a", memory=True, MEMBRIDGE_NATS_URL=url, MEMBRIDGE_COORDINATOR="1", **installed())
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
    machine = make_machine("a", **installed())
    units = {unit["name"]: unit for unit in (await command(machine, "units"))["units"]}
    assert units["membridge-toy.service"]["wanted"] is True
    # What stands behind the last hyphen of the unit's name is the command.
    assert "ExecStart=%h/.local/bin/membridge %j\n" in units["membridge-toy.service"]["text"]
    assert "membridge-toy.service" in units["membridge-node.service"]["text"]
    shown = {line["key"]: line for line in (await command(machine, "config"))["settings"]}
    assert (shown["toy.enabled"]["value"], shown["toy.enabled"]["origin"]) == ("true", "env MEMBRIDGE_TOY")
    code, told = await machine.command("toy", "--help")
    assert (code, "Run a toy until Ctrl-C." in told) == (0, True)
    # Without its distribution the variable is a slip, and there is no such command.
    gone = make_machine("b", MEMBRIDGE_TOY="1")
    assert "MEMBRIDGE_TOY is not a setting" in str((await command(gone, "config"))["warnings"])
    assert (await gone.command("toy"))[0] == 1


async def test_up_serves_its_route_until_what_it_began_is_answered(make_machine: MakeMachine) -> None:
    url = f"nats://127.0.0.1:{free_port()}"
    up = make_machine("a", memory=True, MEMBRIDGE_NATS_URL=url, **installed())
    state = up.home / ".local" / "state" / "membridge"
    web = web_of(up)
    await up.start("up")
    await said(up, f" runs at http://{web.host}:{web.port}\n")
    options = BusOptions(urls=(url,), name="test", nkey_seed=loopback_key(state))
    async with connect(options, deadline=Deadline.after(5.0)) as bus:
        writer, other = await new_key(bus, "notes"), await new_key(bus, "tasks")
        await known(web, other.secret)
        assert (await ask(web, "POST", "/notes", body=note("a"), key=writer.secret)).status == 200
        assert (await ask(web, "POST", "/notes", body=note("b"))).status == 401
        denied = await ask(web, "POST", "/notes", body=note("b"), key=other.secret)
        assert (denied.status, denied.error.detail) == (403, "key of tasks may not do this: it needs operator of notes")
        assert {(await ask(web, "GET", path)).status for path in ("/health", "/ready", "/openapi.json")} == {200}
        # Revoked by another process.
        await Keyring(Kv(bus, buckets.API_KEYS)).revoke(other.key.id, by=ANYBODY, deadline=Deadline.after(5.0))
        revoked_at = time.monotonic()
        while (await ask(web, "GET", "/api/v1/session", key=other.secret)).status == 200:
            await pause()
        assert time.monotonic() - revoked_at < 1.0
    # A request that has begun when `up` is stopped is answered, and what it says is kept.
    reader, sender = await begun(web, "POST", "/notes", len(note("last")), key=writer.secret)
    assert up.process is not None
    up.process.terminate()
    async with asyncio.timeout(PATIENCE):
        while await listens(web):
            await pause()
        sender.write(note("last"))
        answer = parsed(await reader.read())
        assert await up.process.wait() == 0
    sender.close()
    assert answer.status == 200
    with sqlite3.connect(state / "tasks.db") as rows:
        assert rows.execute("SELECT text FROM notes ORDER BY text").fetchall() == [("a",), ("last",)]
    rows.close()


@pytest.fixture
async def place(tmp_path: Path) -> AsyncGenerator[Site]:
    async with site(tmp_path, **installed()) as made:
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
        assert not await member.hears("$KV.api_keys.>")
        assert not await member.publish("$KV.api_keys.aaaaaaaaaaaa")
        assert not await member.publish(AUDIT.format(by="c"))
    seeds = place.host.home / ".local" / "state" / "membridge" / "access" / "keys"
    own = Path(shutil.copy(seeds / "toy.seed", tmp_path / "toy.seed"))
    authority = Path(shutil.copy(seed_of(c, RUNTIME).with_name("authority.pem"), tmp_path))
    url = f"tls://{place.host.extra['MEMBRIDGE_NATS_LISTEN']}"
    options = BusOptions(urls=(url,), name="t", nkey_seed=own, ca_file=authority, inbox_prefix="_INBOX.toy")
    async with connect(options, deadline=Deadline.after(5.0)) as bus:
        issued = await new_key(bus, "notes")
    web = web_of(place.host)
    await known(web, issued.secret)
    assert (await ask(web, "POST", "/notes", body=note("over HTTP"), key=issued.secret)).status == 200
    async with signed_in(place, own, "toy") as toy:
        audited = AUDIT.format(by=issued.key.id)
        kept = await toy.client.request(f"$JS.API.DIRECT.GET.WEB_AUDIT.{audited}", timeout=5)
        assert (json.loads(kept.data)["action"], json.loads(kept.data)["outcome"]) == ("add", "ok")
        assert await toy.publish(audited)
        for subject in ("membridge.toy.add", "membridge.toy.show", "$KV.toy.>", "$KV.api_keys.>"):
            assert await toy.hears(subject), subject
        assert await toy.last("toy", "newest")
        for subject in (
            "membridge.toy.>", "membridge.>", "$KV.leases.>", "_INBOX.>", "membridge.runtime.submit", ">", audited,
        ):  # fmt: skip
            assert not await toy.hears(subject), subject
        for subject in (
            "$KV.leases.x", "$JS.API.DIRECT.GET.KV_leases", "$JS.API.STREAM.DELETE.KV_toy", "$O.membridge.M.x",
            "membridge.runtime.submit", "membridge.runtime.stats", subjects.ROLL_CALL, "$JS.API.STREAM.NAMES",
            "$JS.API.STREAM.PURGE.WEB_AUDIT", "$JS.API.STREAM.DELETE.KV_api_keys",
        ):  # fmt: skip
            assert not await toy.publish(subject), subject
    log = place.host.log.read_text("utf-8")
    assert not [event for event in ("toy not running", "audit entry not kept", "bucket cannot be read") if event in log]


def web_of(machine: NodeProcess) -> Toy:
    """Return where its route is, for `ask`."""
    host, _, port = machine.extra["MEMBRIDGE_TOY_LISTEN"].partition(":")
    return Toy(host=host, port=int(port))


def note(text: str) -> bytes:
    """Return the body of a request to keep a note."""
    return json.dumps({"notes": [text]}).encode()


async def new_key(bus: Bus, scope: str) -> IssuedKey:
    """Issue a key for a scope, as another process does."""
    wanted = IssueKeyRequest(name=f"of {scope}", role=Role.OPERATOR, scopes=[scope])
    return await keys.issue(Kv(bus, buckets.API_KEYS), wanted, by="test", deadline=Deadline.after(5.0))


async def known(web: Toy, key: str) -> None:
    """Wait until the server knows a key."""
    async with asyncio.timeout(PATIENCE):
        while (await ask(web, "GET", "/api/v1/session", key=key)).status != 200:
            await pause()


async def listens(web: Toy) -> bool:
    """Whether a connection is taken."""
    try:
        _, writer = await asyncio.open_connection(web.host, web.port)
    except ConnectionRefusedError:
        return False
    writer.close()
    return True


async def said(machine: NodeProcess, line: str) -> None:
    """Wait until a machine printed a line."""
    async with asyncio.timeout(PATIENCE):
        while line not in machine.log.read_text("utf-8"):
            await written_to(machine.log)


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
