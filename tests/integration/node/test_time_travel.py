"""Time travel with daemons: what a person types, and what the other machines make of it."""

import json
import sqlite3
from contextlib import closing

import pytest

from membridge.aio.deadline import Deadline
from membridge.bus.connection import Bus
from membridge.bus.rpc import RpcClient
from membridge.claudemem.memory import memory_rows
from membridge.errors import RemoteError
from schemas import subjects
from schemas.commits import RestoreRequest, TagAct, TagAction, VerifyRequest
from schemas.identity import canonical_id
from tests.fixtures.machines import PROJECT, MakeMachine, command, until

ID = canonical_id(PROJECT)


async def test_a_memory_is_tagged_compared_restored_and_the_others_follow(make_machine: MakeMachine, bus: Bus) -> None:
    a, b, c = make_machine("a", memory=True), make_machine("b"), make_machine("c")
    await a.start()
    await until(bus, a, lambda seen: seen.project.mirror_seq >= 1)
    await b.start()
    await c.start()
    for machine in (b, c):
        await until(bus, machine, lambda seen: seen.project.mirror_seq >= 1 and seen.project.lag == 0)
    tagged = (await command(a, "tag", "before"))["tags"][0]
    good = memory_rows(a.database)
    await b.stop()
    await b.write(2, "b-alone")
    with closing(sqlite3.connect(a.database, timeout=10)) as database, database:
        database.execute("DELETE FROM observations WHERE id <= 4")
    await a.write(3, "mistake")
    await until(bus, a, lambda seen: seen.project.unsynced == 0 and seen.project.head_seq > tagged["seq"])
    await until(bus, c, lambda seen: seen.project.lag == 0 and seen.project.mirror_seq > tagged["seq"])
    await b.start()
    await until(bus, b, lambda seen: seen.project.unsynced == 0 and seen.project.mirror_seq > tagged["seq"])
    seen = await until(bus, a, lambda seen: seen.project.unsynced == 0 and seen.project.lag == 0)

    counts = {one["table"]: one for one in (await command(a, "diff", "before", "head"))["tables"]}
    assert (counts["observations"]["came"], counts["observations"]["went"]) == (5, 4)
    shown = (await command(a, "history", "--limit", "50"))["tags"]
    assert [(one["name"], one["seq"]) for one in shown] == [("before", tagged["seq"])]

    target = a.home / "old.db"
    assert (await command(a, "restore", "--tag", "before", "--to", str(target)))["path"] == str(target)
    assert memory_rows(target) == good
    code, said = await a.command("restore", "--tag", "before", "--to", str(target))
    assert code == 1
    assert "--force" in said

    code, said = await a.command("restore", "--tag", "before")
    assert code == 1
    assert "run it again with --yes" in said
    code, said = await a.command("restore", "--tag", "before", "--json")
    assert code == 1
    assert json.loads(said)["applied"] is False
    code, said = await c.command("restore", "--tag", "before", "--yes")
    assert code == 1
    assert "run it on a" in said
    head = (await command(a, "status"))["project"]["head_seq"]
    assert head == seen.project.head_seq

    restored = await command(a, "restore", "--tag", "before", "--yes")
    assert restored["applied"]
    assert restored["seq"] > head
    assert memory_rows(a.database) == good
    for machine in (b, c):
        await until(bus, machine, lambda seen: seen.project.mirror_seq >= restored["seq"] and seen.project.lag == 0)
        assert memory_rows(machine.database) == good

    verified = await command(b, "verify")
    assert verified["findings"] == []
    assert verified["restored"] == verified["records"]


async def test_every_one_of_them_answers_on_nats_and_without_a_daemon(make_machine: MakeMachine, bus: Bus) -> None:
    a = make_machine("a", memory=True, MEMBRIDGE_KEEP_LAST="1", MEMBRIDGE_KEEP_HOURLY="0", MEMBRIDGE_KEEP_DAILY="0",
                     MEMBRIDGE_KEEP_WEEKLY="0", MEMBRIDGE_CHAIN_MAX_DELTAS="0")  # fmt: skip
    await a.start()
    await until(bus, a, lambda seen: seen.project.mirror_seq >= 1)
    where = {"project": ID, "node": "a", "deadline": Deadline.after(30.0)}
    assert (await RpcClient(bus).request(subjects.TAG, TagAction(), **where)).tags == []
    with pytest.raises(RemoteError, match="there is no snapshot 0 to tag"):
        await RpcClient(bus).request(subjects.TAG, TagAction(action=TagAct.SET, name="none", state="0"), **where)
    with pytest.raises(RemoteError, match="there is no snapshot 0 to restore"):
        await RpcClient(bus).request(subjects.RESTORE, RestoreRequest(state="0"), **where)
    assert (await RpcClient(bus).request(subjects.VERIFY, VerifyRequest(sample=1), **where)).read_objects == 1
    projects = a.home / ".local" / "state" / "membridge" / "projects"
    await until(bus, a, lambda _: bool([*projects.glob("*/collected")]))
    stamp = next(projects.glob("*/collected"))
    stamp.write_text("1.0", encoding="ascii")
    await a.write(1, "second")
    await until(bus, a, lambda seen: seen.project.head_seq >= 2 and seen.project.unsynced == 0)
    while not [job for job in (await command(a, "jobs"))["jobs"] if job["kind"] == "gc" and job["state"] == "done"]:
        await until(bus, a, lambda seen: seen.last_error is None)
    kept = [record["seq"] for record in (await command(a, "history"))["records"]]
    assert len(kept) == 1
    await a.stop()
    assert (await command(a, "verify"))["findings"] == []
    assert (await command(a, "gc", "--dry-run"))["snapshots"] == 0
    assert (await command(a, "diff", "0"))["newer_seq"] == kept[0]
    assert (await command(a, "tag", "v1"))["tags"][0]["seq"] >= kept[0]
