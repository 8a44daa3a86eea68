"""The daemon as a process: it answers the whole catalogue, stops in time, and survives being killed."""

import asyncio
import json
import signal
import socket
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from membridge.aio.deadline import Deadline
from membridge.bus.connection import Bus
from membridge.bus.rpc import RpcClient
from membridge.claudemem.memory import memory_rows
from membridge.errors import NoResponderError, RemoteError
from membridge.testing.writer import write
from schemas import subjects
from schemas.errors import ErrorCode, ErrorReply
from schemas.identity import canonical_id
from schemas.leadership import Role
from schemas.node import Empty, JobRequest
from schemas.wire import decode
from tests.fixtures.machines import PROJECT, SOON, MakeMachine, command, until
from tests.fixtures.pace import paced

ID = canonical_id(PROJECT)


async def test_every_operation_of_the_catalogue_is_answered_on_node_and_primary(
    make_machine: MakeMachine, bus: Bus
) -> None:
    a = make_machine("a", memory=True)
    await a.start()
    await until(bus, a, lambda seen: seen.project.mirror_seq >= 1)
    for operation in subjects.NODE_OPERATIONS:
        for subject in (operation.at(project=ID, node="a"), operation.to_primary().at(project=ID)):
            reply = await bus.request(subject, b"", deadline=Deadline.after(30.0))
            required = [field.name for field in msgspec.structs.fields(operation.request) if field.required]
            if required:
                assert decode(reply.body, ErrorReply).field == required[0], (subject, reply.headers)
                continue
            if operation is subjects.RESTORE_BACKUP:
                # This node has none yet.
                assert decode(reply.body, ErrorReply).code is ErrorCode.NOT_FOUND, (subject, reply.headers)
                continue
            if operation is subjects.FORGET:
                # An empty request would forget everything.
                assert decode(reply.body, ErrorReply).field == "filter", (subject, reply.headers)
                continue
            assert "Nats-Service-Error" not in reply.headers, (subject, reply.headers)
            decode(reply.body, operation.reply)
    refused = await bus.request(subjects.PUSH.at(project=ID, node="a"), b'{"snapshot": 1}', deadline=Deadline.after(5))
    assert refused.headers["Nats-Service-Error-Code"] == "400"
    assert decode(refused.body, ErrorReply).field == "snapshot"


async def test_info_of_a_running_node_is_the_catalogue(make_machine: MakeMachine, bus: Bus) -> None:
    a = make_machine("a", memory=True)
    await a.start()
    await until(bus, a, lambda seen: seen.project.role is Role.PRIMARY)
    found: dict[str, str] = {}
    async with bus.subscribe(inbox := bus.new_inbox()) as replies:
        wanted = {operation.at(project=ID, node="a") for operation in subjects.NODE_OPERATIONS} | {
            operation.to_primary().at(project=ID) for operation in subjects.NODE_OPERATIONS
        }
        async with asyncio.timeout(SOON), paced(bus) as turn:
            while not wanted <= found.keys():
                await bus.publish("$SRV.INFO.membridge-node", b"", reply=inbox)
                reply = json.loads((await anext(replies)).body)
                found |= {endpoint["subject"]: endpoint["metadata"]["impact"] for endpoint in reply["endpoints"]}
                # Without a pause the connection was lost now and then on a busy machine.
                await turn()
    for operation in subjects.NODE_OPERATIONS:
        assert found[operation.at(project=ID, node="a")] == operation.impact


async def test_two_daemons_share_one_memory_and_the_jobs_outlive_them(make_machine: MakeMachine, bus: Bus) -> None:
    a, b = make_machine("a", memory=True), make_machine("b")
    await a.start()
    await until(bus, a, lambda seen: seen.project.mirror_seq >= 1)
    await b.start()
    await until(bus, b, lambda seen: seen.project.mirror_seq >= 1)
    write(str(b.database), 3, "b")
    await until(bus, a, lambda seen: seen.project.rows.get("observations") == 323)
    await until(bus, b, lambda seen: seen.project.unsynced == 0 and seen.project.lag == 0)
    assert memory_rows(a.database) == memory_rows(b.database)
    present = await RpcClient(bus).request(subjects.NODES, Empty(), project=ID)
    assert ([node.node for node in present.nodes], present.leaderless) == (["a", "b"], [])
    await a.stop()
    await b.stop()
    kinds = {job["kind"] for job in (await command(a, "history")).get("jobs", [])}
    await a.start()
    await until(bus, a, lambda seen: seen.project.role is Role.PRIMARY)
    jobs = (await command(a, "jobs"))["jobs"]
    kinds |= {job["kind"] for job in jobs}
    assert {"push", "pull", "proposals"} <= kinds
    assert {job["node"] for job in jobs} == {"a", "b"}
    # One by its id, also of a machine that is not there.
    for job in (next(job for job in jobs if job["node"] == node) for node in ("a", "b")):
        found = await RpcClient(bus).request(subjects.JOB_BY_ID, JobRequest(id=job["id"]), project=ID, node="a")
        assert (found.id, found.node, found.kind) == (job["id"], job["node"], job["kind"])
    for unknown in ("nothing", "a.b", "*", ">"):
        with pytest.raises(RemoteError, match="there is no job"):
            await RpcClient(bus).request(subjects.JOB_BY_ID, JobRequest(id=unknown), project=ID, node="a")
    assert {node["node"] for node in (await command(a, "nodes"))["nodes"]} == {"a"}


async def test_sigterm_ends_it_within_ten_seconds_with_code_zero(make_machine: MakeMachine, bus: Bus) -> None:
    a = make_machine("a", memory=True)
    await a.start()
    await until(bus, a, lambda seen: seen.project.role is Role.PRIMARY)
    process = a.process
    assert process is not None
    write(str(a.database), 200, "busy")
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(10.0):
        assert await process.wait() == 0
    assert time.monotonic() - began < 10.0


async def test_a_daemon_killed_while_it_pushes_loses_nothing(make_machine: MakeMachine, bus: Bus) -> None:
    a, b = make_machine("a", memory=True), make_machine("b")
    await a.start()
    await until(bus, a, lambda seen: seen.project.mirror_seq >= 1)
    subject = subjects.PUSH.at(project=ID, node="a")
    for number in range(5):
        write(str(a.database), 20, f"round-{number}")
        await bus.publish(subject, b"{}")
        await a.kill()
        await a.start()
        await until(bus, a, lambda seen: seen.project.role is Role.PRIMARY)
    await until(bus, a, lambda seen: seen.project.unsynced == 0)
    await b.start()
    await until(bus, b, lambda seen: seen.project.rows.get("observations") == 420 and seen.project.lag == 0)
    assert memory_rows(a.database) == memory_rows(b.database)


async def test_systemd_hears_ready_watchdog_and_stopping(make_machine: MakeMachine, bus: Bus, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(tmp_path / "notify"))
        heard.settimeout(20.0)
        a = make_machine("a", memory=True, NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="400000")
        await a.start()
        said: list[bytes] = []
        while not {b"READY=1", b"WATCHDOG=1"} <= set(said):
            said.append(await asyncio.to_thread(heard.recv, 100))
        await a.stop()
        while b"STOPPING=1" not in said:
            said.append(await asyncio.to_thread(heard.recv, 100))


async def test_a_conflict_is_settled_alike_everywhere_and_kept_in_the_journal(
    make_machine: MakeMachine, bus: Bus
) -> None:
    a, b = make_machine("a", memory=True), make_machine("b")
    await a.start()
    await until(bus, a, lambda seen: seen.project.mirror_seq >= 1)
    await b.start()
    await until(bus, b, lambda seen: seen.project.mirror_seq >= 1)
    await b.kill()
    edit(b.database, "the secondary's version")
    edit(a.database, "the primary's version")
    await until(bus, a, lambda seen: seen.project.mirror_seq >= 2)
    await b.start()
    await until(bus, b, lambda seen: seen.project.lag == 0 and seen.project.conflicts >= 1)
    await until(bus, b, lambda seen: seen.project.unsynced == 0)
    assert memory_rows(a.database) == memory_rows(b.database)
    (conflict,) = (await command(b, "conflicts"))["conflicts"]
    assert conflict["kept"]["row"]["subtitle"] == "the primary's version"
    assert conflict["lost"]["row"]["subtitle"] == "the secondary's version"


async def test_a_damaged_proposal_is_set_aside_and_the_next_one_goes_on(make_machine: MakeMachine, bus: Bus) -> None:
    a, b = make_machine("a", memory=True), make_machine("b")
    await a.start()
    await until(bus, a, lambda seen: seen.project.mirror_seq >= 1)
    announcement = {
        "id": "0" * 32, "project": ID, "node": "b", "key": f"projects/{ID}/proposals/b/{'0' * 32}.zst",
        "sha256": "0" * 64, "size_bytes": 1, "rows": 1, "submitted_at": "",
    }  # fmt: skip
    subject = subjects.fill(subjects.PROPOSAL, project=ID, node="b")
    await bus.stream_publish(subject, json.dumps(announcement).encode(), message_id="x1", deadline=Deadline.after(5))
    await bus.stream_publish(subject, b"no announcement", message_id="x2", deadline=Deadline.after(5))
    await b.start()
    await until(bus, b, lambda seen: seen.project.mirror_seq >= 1)
    write(str(b.database), 2, "b")
    await until(bus, a, lambda seen: seen.project.rows.get("observations") == 322)
    await until(bus, a, lambda seen: seen.project.quarantined == 1)
    (item,) = (await command(a, "quarantine"))["items"]
    assert item["kind"] == "proposal"
    await command(a, "quarantine", "drop", item["id"])
    assert (await command(a, "quarantine"))["items"] == []


async def test_a_second_project_is_served_from_the_moment_it_is_added(make_machine: MakeMachine, bus: Bus) -> None:
    a = make_machine("a", memory=True)
    await a.start()
    await until(bus, a, lambda seen: seen.project.mirror_seq >= 1)
    other = a.home / "other.db"
    other.write_bytes(a.database.read_bytes())
    await command(a, "project", "add", "other", "--database", str(other))
    reply = await RpcClient(bus).request(subjects.STATUS, Empty(), project=canonical_id("other"), node="a")
    assert reply.project.database == str(other)
    names = {project["name"] for project in (await command(a, "project", "list"))["projects"]}
    assert names == {PROJECT, "other"}


async def test_a_project_is_removed_and_added_again_and_loses_nothing(make_machine: MakeMachine, bus: Bus) -> None:
    a = make_machine("a", memory=True)
    await a.start()
    await until(bus, a, lambda seen: seen.project.mirror_seq >= 1)
    other = a.home / "other.db"
    other.write_bytes(a.database.read_bytes())
    add = ("project", "add", "other", "--database", str(other))
    await command(a, *add)
    pushed = await command(a, "push", "--project", "other")
    code, output = await a.command("project", "remove", "other")
    assert (code, "was not removed" in output, "--yes" in output) == (1, True, True)
    code, output = await a.command("project", "remove", PROJECT, "--yes")
    assert (code, "in this node's settings" in output) == (1, True)
    code, output = await a.command("project", "remove", "nothing", "--yes")
    assert (code, "does not serve" in output) == (1, True)

    code, output = await a.command("project", "remove", "other", "--yes")
    assert code == 0, output
    assert f"its database {other} and its snapshots stay" in output
    for operation in (subjects.STATUS, subjects.PUSH):
        with pytest.raises(NoResponderError):
            await RpcClient(bus).request(operation, Empty(), project=canonical_id("other"), node="a")
    assert sorted(memory_rows(other)) == sorted(memory_rows(a.database))
    # The other project goes on, and the next start serves no more.
    write(str(a.database), 1, "a")
    await until(bus, a, lambda seen: seen.project.unsynced == 0 and seen.project.rows.get("observations") == 321)
    await a.stop()
    write(str(other), 2, "while it was not served")
    await a.start()
    await until(bus, a, lambda seen: seen.project.role is Role.PRIMARY)
    assert [one["name"] for one in (await command(a, "project"))["projects"]] == [PROJECT]
    # The command that was printed serves it again, from where it was.
    assert f"membridge {' '.join(add)}" in output
    await command(a, *add)
    again = await command(a, "push", "--project", "other")
    assert again["seq"] > pushed["seq"]
    assert (await command(a, "status", "--project", "other"))["project"]["rows"]["observations"] == 322
    # Without a daemon it is taken off the list.
    await a.stop()
    assert (await command(a, "project", "remove", "other", "--yes"))["name"] == "other"
    assert [one["name"] for one in (await command(a, "project"))["projects"]] == [PROJECT]


def edit(database: Path, subtitle: str) -> None:
    with closing(sqlite3.connect(database, timeout=10)) as connection, connection:
        connection.execute("UPDATE observations SET subtitle = ? WHERE id = 7", (subtitle,))
