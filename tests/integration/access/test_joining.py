"""Joining by one line, and being cut off again, with real processes."""

import asyncio
import json
import os
import sqlite3
import stat
from collections.abc import AsyncGenerator
from contextlib import closing
from pathlib import Path

import pytest
from msgspec.structs import replace

from membridge.access import invitation
from membridge.claudemem.memory import memory_rows
from membridge.objectstore.encryption.keys import new_key, read_file, write_file
from membridge.testing.node_process import NodeProcess
from schemas.identity import canonical_id
from tests.fixtures.machines import command
from tests.integration.access.sites import OTHER, SHARED, Site, eventually, seed_of, site


@pytest.fixture
async def place(tmp_path: Path) -> AsyncGenerator[Site]:
    async with site(tmp_path) as made:
        yield made


def same_memory(*machines: NodeProcess) -> bool:
    first, *others = (memory_rows(machine.database) for machine in machines)
    return all(other == first for other in others)


def number_of_rows(machine: NodeProcess) -> int:
    return sum(map(len, memory_rows(machine.database).values()))


async def test_one_line_brings_a_machine_in_and_keeps_it_in_step(place: Site) -> None:
    line = await place.invite()
    b = place.machine("b")
    joining = await asyncio.create_subprocess_exec(
        *("python", "-m", "membridge.cli.main", "join", line, "--node", "b", "--project", SHARED),
        env=b.environment(),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    b.process = joining
    try:

        async def serves() -> bool:
            code, _ = await b.command("status")
            return code == 0 and b.database.exists() and await asyncio.to_thread(same_memory, place.host, b)

        b.log.parent.mkdir(parents=True, exist_ok=True)
        b.log.touch()
        await eventually(serves, place.host)
        total = number_of_rows(b)
        await b.write(5, "learned on b")
        await place.host.write(5, "learned on a")

        async def met() -> bool:
            return await asyncio.to_thread(same_memory, place.host, b) and number_of_rows(b) >= total + 12

        await eventually(met, place.host)
        nodes = {node["node"] for node in (await command(place.host, "nodes"))["nodes"]}
        assert nodes == {"a", "b"}
        # What the process list shows of a machine that joined is no invitation.
        shown = await asyncio.to_thread(Path(f"/proc/{joining.pid}/cmdline").read_text, errors="replace")
        assert line not in shown
    finally:
        await b.stop()


async def test_a_cut_off_join_is_finished_by_the_same_line(place: Site) -> None:
    line = await place.invite()
    b = place.machine("b")
    assert (await b.command("join", line, "--once", "--node", "b"))[0] == 0
    (b.home / ".config" / "membridge" / "enrolled.toml").unlink()
    code, output = await b.command("join", line, "--once", "--node", "b")
    assert code == 0, output
    assert same_memory(place.host, b)


async def test_used_forged_and_misdirected_invitations_are_refused_and_written_down(place: Site) -> None:
    line = await place.invite("--node", "b")
    assert (await place.machine("b").command("join", line, "--once"))[0] == 0
    said = invitation.parse(await place.invite("--node", "c"))
    forged = invitation.write(replace(said, secret="x" * 32))
    unknown = invitation.write(replace(said, id="0" * 16))
    for attempt, name, says in (
        (line, "d", "used already"),
        (forged, "c", "does not know the invitation"),
        (unknown, "c", "does not know the invitation"),
        (invitation.write(said), "d", "for node c"),
    ):
        code, output = await place.machine(name).command("join", attempt, "--once", "--node", name)
        assert (code, says in output) == (1, True), output
        assert not (place.machine(name).home / ".config" / "membridge" / "enrolled.toml").exists()
    log = (await command(place.host, "nodes", "log"))["records"]
    assert [item["action"] for item in log].count("refused") == 4
    members = (await command(place.host, "nodes", "members"))["members"]
    assert [item["node"] for item in members] == ["a", "b"]


async def test_a_name_that_contradicts_the_machines_own_is_refused_before_anything_is_enrolled(place: Site) -> None:
    line = await place.invite()
    b = place.machine("b", MEMBRIDGE_NODE_ID="bob")
    code, output = await b.command("join", line, "--once", "--node", "b")
    assert (code, "node.id is bob, set by env MEMBRIDGE_NODE_ID" in output) == (1, True), output
    assert [item["node"] for item in (await command(place.host, "nodes", "members"))["members"]] == ["a"]
    assert [item["action"] for item in (await command(place.host, "nodes", "log"))["records"]] == ["invited"]
    # The remedy, with the same line.
    assert "`--node bob`" in output
    assert (await b.command("join", line, "--once", "--node", "bob"))[0] == 0
    assert (await command(b, "status"))["node"] == "bob"


async def test_another_server_is_not_believed_and_hears_no_secret(place: Site) -> None:
    said = invitation.parse(await place.invite())
    elsewhere = invitation.write(replace(said, fingerprint="0" * 64))
    code, output = await place.machine("b").command("join", elsewhere, "--once", "--node", "b")
    assert code == 1
    assert "did not make this invitation" in output
    assert (await command(place.host, "nodes", "log"))["records"][0]["action"] == "invited"


async def test_a_restart_ends_open_invitations_and_keeps_who_is_in(place: Site) -> None:
    b = await place.joined("b")
    line = await place.invite()
    await place.host.stop()
    await place.host.start("up")

    async def answers() -> bool:
        return (await b.command("pull"))[0] == 0

    await eventually(answers, place.host)
    code, output = await place.machine("c").command("join", line, "--once", "--node", "c")
    assert code == 1
    assert "expired" in output


async def test_an_invitation_for_one_project_gives_that_one_alone(place: Site) -> None:
    b = await place.joined("b", OTHER)
    members = {item["node"]: item for item in (await command(place.host, "nodes", "members"))["members"]}
    assert len(members["a"]["keys"]) == 2
    assert len(members["b"]["keys"]) == 1
    code, output = await b.command("pull", "--project", SHARED)
    assert code == 1, output


async def test_a_machine_that_joins_is_told_the_key_that_seals(tmp_path: Path) -> None:
    keys, phrase = tmp_path / "a.keys", "correct horse battery staple"
    write_file(keys, [new_key()])
    extra = {"MEMBRIDGE_ENCRYPTION_KEY_FILE": str(keys), "MEMBRIDGE_ENCRYPTION_PASSPHRASE": phrase}
    async with site(tmp_path, **extra) as place:
        b = await place.joined("b")
        # Before one pushes what the other wrote.
        await place.host.stop()
        assert same_memory(place.host, b)
        told = next(b.home.rglob("sealing.keys"))
        assert told.read_bytes() == keys.read_bytes()
        assert stat.S_IMODE(told.stat().st_mode) == 0o600
        for words in ("config show", "key"):
            code, output = await b.command(*words.split())
            assert (code, phrase in output) == (0, False)
            assert read_file(told)[0].secret.hex() not in output


async def test_nothing_that_a_run_writes_holds_a_secret_except_the_key_files(place: Site) -> None:
    line = await place.invite()
    outputs: list[str] = []
    b = place.machine("b", MEMBRIDGE_LOG_LEVEL="debug")
    outputs.append((await b.command("join", line, "--once", "--node", "b"))[1])
    for machine in (place.host, b):
        commands = ("doctor", "config show", "status", "nodes", "jobs")
        outputs += [(await machine.command(*words.split()))[1] for words in commands]
    outputs.append((await place.host.command("nodes", "log"))[1])
    await place.host.stop()
    secrets = {invitation.parse(line).secret, line[-100:]}
    key_files = [*place.root.rglob("*.seed"), *place.root.rglob("*.key")]
    assert len(key_files) >= 9
    for file in key_files:
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file
        # Of a PEM file the first line: further on it holds the public half, which a certificate shows.
        secrets.add(next(part for part in file.read_text().splitlines() if not part.startswith("-")))
    text = "\n".join(outputs)
    assert [secret for secret in secrets if secret in text] == []
    for folder, _, names in os.walk(place.root):
        for name in names:
            file = Path(folder, name)
            body = file.read_bytes() if file.is_file() and file not in key_files else b""
            assert [secret for secret in secrets if secret.encode() in body] == [], file


async def test_the_server_listens_where_it_was_told_and_monitoring_on_loopback(place: Site) -> None:
    port = int(place.host.extra["MEMBRIDGE_NATS_LISTEN"].rpartition(":")[2])
    seed = seed_of(await place.joined("b"), canonical_id(SHARED))
    assert stat.S_IMODE(seed.parent.stat().st_mode) == 0o700
    listening = _listening()
    assert ("127.0.0.1", port) in listening
    assert all(address == "127.0.0.1" for address, _ in listening)


async def test_a_memory_can_be_left_for_another(place: Site, tmp_path: Path) -> None:
    b = await place.joined("b")
    code, output = await b.command("join", await place.invite(), "--once")
    assert code == 1
    assert "already joined a memory" in output
    assert json.loads((await b.command("status", "--json"))[1])["node"] == "b"
    with closing(sqlite3.connect(b.database)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def _listening() -> set[tuple[str, int]]:
    """Return the addresses that nats-servers of this user listen on, as the kernel has them."""
    inodes: set[str] = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if process.joinpath("comm").read_text().strip() != "nats-server":
                continue
            links = [str(link.readlink()) for link in process.joinpath("fd").iterdir()]
        except OSError:
            continue
        inodes |= {link[8:-1] for link in links if link.startswith("socket:[")}
    found: set[tuple[str, int]] = set()
    for table in ("tcp", "tcp6"):
        for row in Path("/proc/net", table).read_text().splitlines()[1:]:
            fields = row.split()
            if fields[3] == "0A" and fields[9] in inodes:
                raw, port = fields[1].split(":")
                loopback = raw in {"0100007F", "00000000000000000000000001000000"}
                found.add(("127.0.0.1" if loopback else raw, int(port, 16)))
    return found
