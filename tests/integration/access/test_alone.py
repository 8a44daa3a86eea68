"""`membridge up` for this machine alone: keys from its first start, and nobody gets in without one."""

import json
import stat
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from membridge.access.nkeys import provide_key
from membridge.aio.deadline import Deadline
from membridge.bus.connection import Bus, connect
from membridge.bus.options import BusOptions
from membridge.embedded.nats_server import start_nats
from membridge.errors import CredentialsError
from membridge.testing.node_process import NodeProcess
from schemas.identity import canonical_id
from tests.fixtures.machines import PROJECT, MakeMachine, command
from tests.fixtures.ports import free_port
from tests.integration.access.sites import eventually, shouting_claude


@pytest.fixture
def alone(make_machine: MakeMachine, tmp_path: Path) -> NodeProcess:
    """A machine with a memory and all parts, on which `up` has not run yet."""
    return make_machine(
        "a", memory=True, MEMBRIDGE_NATS_URL=f"nats://127.0.0.1:{free_port()}", MEMBRIDGE_COORDINATOR="1",
        MEMBRIDGE_WORKER="1", MEMBRIDGE_CLAUDE=str(shouting_claude(tmp_path)), XDG_CONFIG_HOME=str(tmp_path / "config"),
    )  # fmt: skip


async def test_every_part_works_with_keys_and_nothing_without(alone: NodeProcess, tmp_path: Path) -> None:
    await up(alone)
    access = state_of(alone) / "access"
    seeds = {path: path.read_bytes() for path in access.rglob("*.seed")}
    assert len(seeds) == 2
    await every_part_works(alone)

    assert await refuses(alone, None)
    provide_key(tmp_path / "of-somebody-else.seed")
    assert await refuses(alone, tmp_path / "of-somebody-else.seed")
    await the_stock_cli_gets_in(alone, tmp_path / "config" / "nats" / "context" / "membridge.json")
    for path in (access, *access.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path

    # A second start uses the same keys, whatever a copy from a backup made of the files.
    await alone.stop()
    (access / "loopback" / "nats-server.conf").unlink()
    for path in (*seeds, access):
        path.chmod(0o755)
    await up(alone)
    assert {path: path.read_bytes() for path in seeds} == seeds
    assert {stat.S_IMODE(path.stat().st_mode) for path in seeds} == {0o600}
    assert stat.S_IMODE(access.stat().st_mode) == 0o700
    assert await refuses(alone, None)
    assert (await command(alone, "history"))["records"]


async def test_what_was_there_before_there_were_keys_is_there_with_them(alone: NodeProcess) -> None:
    """A home as an `up` without keys left it: all data in the server's global account."""
    port = int(alone.extra["MEMBRIDGE_NATS_URL"].rpartition(":")[2])
    with start_nats(state_of(alone) / "nats", port=port):
        await command(alone, "push")
        await command(alone, "tag", "before-keys")
        before = await command(alone, "history")
    # Keys of another server are named before anything starts, and the remedy is the right one.
    other = {**alone.extra, "MEMBRIDGE_NATS_NKEY_SEED_FILE": str(alone.home / "x.seed")}
    code, output = await NodeProcess("a", alone.home, "", PROJECT, extra=other).command("up")
    assert (code, "nats.nkey_seed_file (env MEMBRIDGE_NATS_NKEY_SEED_FILE)" in output) == (1, True)
    await up(alone)
    assert await refuses(alone, None)
    after = await command(alone, "history")
    assert [tag["name"] for tag in after["tags"]] == ["before-keys"]
    assert after["records"][-1] == before["records"][-1]
    assert (await command(alone, "verify"))["findings"] == []
    await alone.stop()
    # The same when other machines may join, and when they may no more.
    extra = {**alone.extra, "MEMBRIDGE_NATS_URL": "", "MEMBRIDGE_NATS_LISTEN": f"127.0.0.1:{free_port()}"}
    host = NodeProcess("a", alone.home, "", PROJECT, extra=extra)
    await up(host)
    try:
        assert (await command(host, "history"))["records"][-1] == before["records"][-1]
        assert (await command(host, "verify"))["findings"] == []
        assert (await command(host, "invite"))["line"]
        await host.write(2, "with others")
        pushed = (await command(host, "push", "--snapshot"))["seq"]
    finally:
        await host.stop()
    forget_others(alone)
    await up(alone)
    records = (await command(alone, "history"))["records"]
    assert records[-1] == before["records"][-1]
    assert records[0]["seq"] >= pushed
    assert (await command(alone, "verify"))["findings"] == []


async def every_part_works(machine: NodeProcess) -> None:
    """Ask the node, the coordinator and the worker, each through the command line."""
    assert (await command(machine, "status"))["project"]["role"] == "primary"
    await machine.write(2, "with keys")
    pushed = await command(machine, "push", "--snapshot")
    assert pushed["outcome"] in {"committed", "unchanged"}
    checks = (await command(machine, "doctor"))["checks"]
    assert {check["finding"] for check in checks} == {"ok"}, checks
    assert [node["node"] for node in (await command(machine, "nodes"))["nodes"]] == ["a"]
    done = await command(machine, "task", "submit", "hello", "--wait")
    assert done["result"]["output"] == "HELLO"
    added = await command(machine, "project", "add", "work", "--database", str(machine.home / "work.db"))
    assert "work" in json.dumps(added)


async def the_stock_cli_gets_in(machine: NodeProcess, file: Path) -> None:
    """Ask as the `nats` CLI does with the context that was written."""
    written = await command(machine, "nats-context")
    assert written["contexts"] == {"membridge": str(file)}
    subject = f"membridge.{canonical_id(PROJECT)}.primary.status"
    assert written["example"] == f"nats --context membridge request {subject} ''"
    async with signed_in(machine, key_in(file)) as bus:
        for asked in (subject, "membridge.runtime.stats", "$JS.API.STREAM.NAMES", "$SRV.PING"):
            answer = await bus.request(asked, deadline=Deadline.after(5.0))
            assert "error" not in json.loads(answer.body), asked


def forget_others(machine: NodeProcess) -> None:
    """Let `up` listen on loopback alone again, as the documentation says."""
    (enrolled,) = machine.home.parent.rglob("enrolled.toml")
    enrolled.unlink()


def key_in(context: Path) -> Path:
    """Return the file of the key that a context names."""
    return Path(json.loads(context.read_text())["nkey"])


async def up(machine: NodeProcess) -> None:
    """Start `up` and wait until all parts serve."""
    await machine.start("up")

    async def serves() -> bool:
        code, output = await machine.command("status", "--json")
        if code or json.loads(output)["project"]["mirror_seq"] < 1:
            return False
        code, output = await machine.command("worker", "list", "--json")
        return code == 0 and [one["status"] for one in json.loads(output)["workers"]] == ["online"]

    await eventually(serves, machine)


def state_of(machine: NodeProcess) -> Path:
    return machine.home / ".local" / "state" / "membridge"


async def refuses(machine: NodeProcess, seed: Path | None) -> bool:
    """Whether the running server refuses a connection with this key, or without any."""
    try:
        async with signed_in(machine, seed):
            return False
    except CredentialsError:
        return True


def signed_in(machine: NodeProcess, seed: Path | None) -> AbstractAsyncContextManager[Bus]:
    """Connect with the key in `seed`, whatever the settings say."""
    options = BusOptions(urls=(machine.extra["MEMBRIDGE_NATS_URL"],), name="test", nkey_seed=seed)
    return connect(options, deadline=Deadline.after(5.0))
