"""The doctor, `status` and `nodes` never claim what was not looked at, and agree with each other."""

import asyncio
import json
from collections.abc import Callable

import msgspec

from membridge.aio.deadline import Deadline
from membridge.bus.connection import Bus
from membridge.bus.kv import open_bucket
from membridge.bus.watch import watch
from membridge.merge.audit import AUDIT_FILE, AuditNote
from membridge.merge.row_index import INDEX_FILE, RowIndex
from membridge.objectstore.s3.client import S3Options
from membridge.system import clock
from membridge.testing.node_process import NodeProcess
from membridge.testing.writer import write
from schemas.buckets import NODES
from schemas.identity import canonical_id
from schemas.leadership import Role
from schemas.node import ProjectPresence
from tests.fixtures.machines import PROJECT, SOON, MakeMachine, command, until
from tests.fixtures.ports import free_port

HERE = {"settings", "database", "sqlite", "claude-mem worker", "hooks", "disk"}
OVER_NATS = {"jetstream", "lock", "leadership", "clock"}


async def examined(machine: NodeProcess) -> dict[str, dict[str, str]]:
    """Return the doctor's lines by name."""
    _, output = await machine.command("doctor", "--json")
    return {check["name"]: check for check in json.loads(output)["checks"]}


def found(lines: dict[str, dict[str, str]], finding: str) -> set[str]:
    return {name for name, check in lines.items() if check["finding"] == finding}


async def test_without_nats_every_other_line_of_the_doctor_is_still_checked(make_machine: MakeMachine) -> None:
    a = make_machine("a", memory=True, MEMBRIDGE_NATS_URL=f"nats://127.0.0.1:{free_port()}")
    a.database.parent.joinpath("settings.json").write_text("{}")
    lines = await examined(a)
    assert found(lines, "fail") == {"nats"}
    assert found(lines, "skipped") == {*OVER_NATS, "object store", "encryption"}
    assert found(lines, "ok") >= HERE
    assert lines["daemon"]["detail"] == "no daemon runs: nothing is synchronised"
    assert "the head was not checked" in lines["database"]["detail"]
    # What is wrong on this machine is found without NATS too.
    a.database.write_bytes(b"not a database, whatever its name says" * 100)
    assert found(await examined(a), "fail") == {"nats", "database"}
    code, output = await a.command("status")
    assert (code, "nothing is synchronised" in output) == (1, True), output


async def test_when_all_rows_were_compared_and_what_had_been_missed_is_said_of_the_last_comparison(
    make_machine: MakeMachine,
) -> None:
    a = make_machine("a", memory=True, MEMBRIDGE_NATS_URL=f"nats://127.0.0.1:{free_port()}")
    assert (await examined(a))["rows"]["detail"] == "no change was missed; none was compared yet"

    folder = a.home / ".local" / "state" / "membridge" / "projects" / canonical_id(a.project)
    folder.mkdir(parents=True)
    note = AuditNote(ended_at="2026-01-31T17:00:05.000+00:00", began_at="2026-02-01T17:00:00.000+00:00")
    (folder / AUDIT_FILE).write_bytes(msgspec.json.encode(note))
    index = RowIndex(folder / INDEX_FILE, a.database)
    index.distrust(3)
    index.close()

    line = (await examined(a))["rows"]
    assert line["finding"] == "warn"
    assert line["detail"] == (
        "comparisons of everything found 3 keys that had been missed, and healed them; all were compared last at "
        f"{clock.local(note.ended_at)}, and are being compared since {clock.local(note.began_at)}"
    )


async def test_without_the_store_every_other_line_of_the_doctor_is_still_checked(
    make_machine: MakeMachine, s3_options: S3Options
) -> None:
    away = {
        "MINIO_ENDPOINT": f"http://127.0.0.1:{free_port()}",
        "MINIO_ACCESS_KEY": s3_options.access_key,
        "MINIO_SECRET_KEY": s3_options.secret_key,
        "MINIO_BUCKET": s3_options.bucket,
    }
    a = make_machine("a", memory=True, **away)
    there = {**away, "MINIO_ENDPOINT": s3_options.endpoint, "MEMBRIDGE_NATS_URL": f"nats://127.0.0.1:{free_port()}"}
    b = make_machine("b", memory=True, **there)
    async with asyncio.TaskGroup() as group:
        of_a, of_b = group.create_task(examined(a)), group.create_task(examined(b))
    lines = of_a.result()
    assert found(lines, "fail") == {"object store"}
    assert found(lines, "skipped") == {"encryption"}
    assert found(lines, "ok") >= {*HERE, "nats", *OVER_NATS} - {"leadership"}
    # An S3 is looked at without NATS.
    lines = of_b.result()
    assert lines["object store"]["finding"] == "ok", lines["object store"]
    assert found(lines, "skipped") == OVER_NATS


async def test_no_primary_is_said_as_such_and_unsynced_agrees_after_the_preferred_node_resigned(
    make_machine: MakeMachine, bus: Bus
) -> None:
    a = make_machine("a", memory=True)
    code, output = await a.command("status")
    assert (code, "no daemon runs: nothing is synchronised" in " ".join(output.split())) == (0, True), output
    await a.start()
    await until(bus, a, lambda seen: seen.project.mirror_seq >= 1 and seen.project.role is Role.PRIMARY)
    assert (await command(a, "nodes"))["leaderless"] == []
    await command(a, "leader", "resign")
    write(str(a.database), 3, "after it resigned")
    # A session and three observations, each in a transaction of its own.
    await until(bus, a, lambda seen: seen.project.unsynced == 4)
    said = await presence_of(bus, a, lambda seen: seen.unsynced == 4)
    assert said.role is Role.SECONDARY
    listed = await command(a, "nodes")
    assert listed["leaderless"] == [PROJECT]
    assert listed["nodes"][0]["projects"][0]["unsynced"] == (await command(a, "status"))["project"]["unsynced"]
    for arguments in (("status",), ("nodes",), ("leader",), ("doctor",)):
        _, output = await a.command(*arguments)
        assert "no node is primary" in " ".join(output.split()), arguments
    await command(a, "leader", "select", "a")
    await presence_of(bus, a, lambda seen: seen.unsynced == 0 and seen.role is Role.PRIMARY)
    assert (await command(a, "status"))["project"]["unsynced"] == 0


async def presence_of(bus: Bus, machine: NodeProcess, wanted: Callable[[ProjectPresence], bool]) -> ProjectPresence:
    """Wait until the machine's entry among the present nodes is as wanted."""
    bucket = await open_bucket(bus, NODES, replicas=1, deadline=Deadline.after(5.0))
    async with asyncio.timeout(SOON):
        async for change in watch(bucket, machine.name):
            if change.entry is not None and (projects := change.entry.value.projects) and wanted(projects[0]):
                return projects[0]
    raise AssertionError("the watch ended")
