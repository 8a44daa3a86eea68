"""Encryption of a node's whole memory, with daemons: on by one setting, later, rotated, and with the wrong key."""

import shutil
from pathlib import Path

from membridge.bus.connection import Bus
from membridge.claudemem.memory import memory_rows
from membridge.objectstore.s3.client import S3Options
from membridge.testing.node_process import NodeProcess
from schemas.leadership import Role
from tests.fixtures.machines import MakeMachine, command, until
from tests.integration.node.test_recovery import on

SECRET = "the bridge rests on nine pillars"


def with_key(folder: Path) -> dict[str, str]:
    return {"MEMBRIDGE_ENCRYPTION_KEY_FILE": str(folder / "sealing.keys")}


async def in_step(bus: Bus, a: NodeProcess, b: NodeProcess) -> None:
    await until(bus, a, lambda seen: seen.project.role is Role.PRIMARY and not seen.project.unsynced)
    await until(bus, b, lambda seen: same(a, b) and not seen.project.unsynced)


def same(a: NodeProcess, b: NodeProcess) -> bool:
    return b.database.exists() and memory_rows(a.database) == memory_rows(b.database)


def holding(folder: Path, text: str) -> list[Path]:
    """Return the files under `folder` in which the text stands."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path for path in files if text.encode() in path.read_bytes()]


async def test_two_nodes_share_a_memory_that_the_server_cannot_read(
    make_machine: MakeMachine, bus: Bus, tmp_path: Path
) -> None:
    both = {"PRIMARY_NODE_ID": "a", **with_key(tmp_path)}
    a, b = make_machine("a", memory=True, **both), make_machine("b", **both)
    await command(a, "key", "new")
    await a.write(3, SECRET)
    await a.start()
    await until(bus, a, lambda seen: seen.project.mirror_seq >= 1)
    await b.start()
    await in_step(bus, a, b)
    await b.write(3, f"{SECRET}, said b")
    await in_step(bus, a, b)
    assert holding(a.database.parent, SECRET)
    assert holding(tmp_path / "nats", SECRET) == []
    assert "encrypted with key" in found(await command(a, "doctor"))


async def test_a_store_that_was_unsealed_is_sealed_and_its_key_exchanged(
    make_machine: MakeMachine, bus: Bus, tmp_path: Path, s3_options: S3Options
) -> None:
    plain, sealed = {"PRIMARY_NODE_ID": "a", **on(s3_options)}, with_key(tmp_path)
    before = make_machine("a", memory=True, **plain)
    await command(before, "push")
    assert "off: the operator of the store" in found(await command(before, "doctor"))

    a, b = make_machine("a", **plain, **sealed), make_machine("b", **plain, **sealed)
    first = (await command(a, "key", "new"))["keys"][0]["id"]
    code, said = await a.command("push")
    assert code != 0
    assert "not encrypted" in said
    assert "membridge key seal" in said
    (done,) = (await command(a, "key", "seal"))["projects"]
    assert done["unsealed"] >= 2
    await command(b, "pull")
    assert memory_rows(a.database) == memory_rows(b.database)
    code, said = await before.command("push")
    assert code != 0
    assert f"encrypted with key {first}, and this node has no key" in said

    second = (await command(a, "key", "rotate"))["keys"][0]["id"]
    await a.write(2, SECRET)
    await command(a, "push")
    (done,) = (await command(a, "key", "seal"))["projects"]
    assert (done["unsealed"], done["older"] > 0) == (0, True)
    assert f"encrypted with key {second}" in found(await command(a, "doctor"))
    await command(b, "pull")
    assert (await command(b, "verify"))["findings"] == []
    assert memory_rows(a.database) == memory_rows(b.database)


async def test_rotate_then_seal_never_locks_the_running_daemon_out(
    make_machine: MakeMachine, bus: Bus, tmp_path: Path
) -> None:
    a = make_machine("a", memory=True, **with_key(tmp_path))
    await command(a, "key", "new")
    await a.start()
    await until(bus, a, lambda seen: seen.project.mirror_seq >= 1 and not seen.project.unsynced)
    fresh = (await command(a, "key", "rotate"))["keys"][0]
    (done,) = (await command(a, "key", "seal"))["projects"]
    assert done["older"] > 0
    # The daemon itself reads everything and writes more, at once; then only the new key is left.
    assert (await command(a, "verify"))["findings"] == []
    await a.write(2, SECRET)
    await command(a, "push")
    keep_first_key(tmp_path / "sealing.keys")
    assert [key["id"] for key in (await command(a, "key"))["keys"]] == [fresh["id"]]
    assert (await command(a, "verify"))["findings"] == []
    seen = await until(bus, a, lambda seen: not seen.project.unsynced)
    assert seen.last_error is None


def keep_first_key(file: Path) -> None:
    """Remove the old lines of a key file, as its owner does."""
    comment, first, *_ = file.read_text().splitlines()
    file.write_text(f"{comment}\n{first}\n")


async def test_the_wrong_key_is_one_line_and_no_node_is_harmed(
    make_machine: MakeMachine, bus: Bus, tmp_path: Path
) -> None:
    a = make_machine("a", memory=True, **with_key(tmp_path))
    await command(a, "key", "new")
    await command(a, "push")
    stranger = make_machine("b", memory=True, MEMBRIDGE_ENCRYPTION_KEY_FILE=str(tmp_path / "other.keys"))
    await command(stranger, "key", "new")
    before = shutil.copyfile(stranger.database, tmp_path / "before.db")
    for order in ("pull", "push"):
        code, said = await stranger.command(order)
        assert code != 0
        (line,) = [line for line in said.splitlines() if "encrypted with key" in line]
        assert "and this node has" in line
    assert memory_rows(stranger.database) == memory_rows(before)
    await stranger.start()
    await until(bus, stranger, lambda seen: "encrypted with key" in (seen.last_error or ""))
    await command(a, "verify")


async def test_a_passphrase_is_enough_and_shows_nowhere(make_machine: MakeMachine, bus: Bus, tmp_path: Path) -> None:
    phrase = "correct horse battery staple"
    a = make_machine("a", memory=True, MEMBRIDGE_ENCRYPTION_PASSPHRASE=phrase)
    b = make_machine("b", MEMBRIDGE_ENCRYPTION_PASSPHRASE=phrase)
    await command(a, "push")
    await command(b, "pull")
    assert memory_rows(a.database) == memory_rows(b.database)
    for shown in (await a.command("config"), await a.command("doctor"), await a.command("key")):
        assert phrase not in shown[1]
    assert holding(tmp_path / "a" / ".local", phrase) == []


def found(doctor: dict[str, list[dict[str, str]]]) -> str:
    (check,) = [one for one in doctor["checks"] if one["name"] == "encryption"]
    return check["detail"]
