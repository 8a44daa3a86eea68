"""One project that cannot be opened ends neither the daemon nor the others; adding one is done once, or not at all."""

import asyncio
import json
import shutil
from pathlib import Path

import pytest

from membridge.aio.deadline import Deadline
from membridge.bus.connection import Bus
from membridge.bus.rpc import RpcClient
from membridge.claudemem.memory import memory_rows
from membridge.errors import RemoteError
from membridge.testing.node_process import NodeProcess
from membridge.testing.writer import write
from schemas import subjects
from schemas.errors import ErrorCode
from schemas.identity import canonical_id
from schemas.leadership import Role
from schemas.node import AddProjectRequest, Empty, Finding, ProjectsReply, StatusReply
from schemas.snapshot import PushRequest
from tests.fixtures.machines import PROJECT, SAMPLE, SOON, MakeMachine, command, until
from tests.fixtures.pace import pause

OTHER = canonical_id("other")


def with_other(machine: NodeProcess) -> Path:
    """Let the machine's settings name a second project with a memory of its own; return its state folder."""
    other = machine.home / "other.db"
    shutil.copyfile(SAMPLE, other)
    config = machine.home / ".config" / "membridge" / "config.toml"
    config.parent.mkdir(parents=True, mode=0o700)
    config.write_text(f'[[projects]]\nname = "other"\ndatabase = "{other}"\n')
    return state(machine) / "projects" / OTHER


def state(machine: NodeProcess) -> Path:
    return machine.home / ".local" / "state" / "membridge"


async def of_other(bus: Bus) -> StatusReply:
    return await RpcClient(bus).request(subjects.STATUS, Empty(), project=OTHER, node="a", deadline=Deadline.after(5.0))


async def served(bus: Bus, machine: NodeProcess) -> StatusReply:
    """Wait until the other project is served."""
    async with asyncio.timeout(SOON):
        while (found := await of_other(bus)).project.error:
            assert machine.process is not None
            assert machine.process.returncode is None, machine.log.read_text()
            await pause()
    return found


async def test_one_project_that_cannot_open_is_reported_and_retried_and_the_others_serve(
    make_machine: MakeMachine, bus: Bus
) -> None:
    a = make_machine("a", memory=True)
    folder = with_other(a)
    folder.parent.mkdir(parents=True)
    # A file where the project's folder should be: its journal cannot be opened.
    folder.write_text("in the way")
    await a.start()
    await until(bus, a, lambda seen: seen.project.mirror_seq >= 1)

    found = await of_other(bus)
    assert found.project.role is Role.NONE
    assert str(folder) in found.project.error
    listed = (await command(a, "nodes"))["nodes"][0]["projects"]
    assert {item["name"]: bool(item["error"]) for item in listed} == {PROJECT: False, "other": True}
    code, output = await a.command("status", "--project", "other")
    assert (code, "not served" in output) == (0, True), output
    code, output = await a.command("doctor", "--project", "other", "--json")
    lines = {check["name"]: check["finding"] for check in json.loads(output)["checks"]}
    assert (code, lines["project"], lines["nats"], lines["database"]) == (1, Finding.FAIL, Finding.OK, Finding.OK)
    assert "project not served" in a.log.read_text()
    with pytest.raises(RemoteError, match=folder.name) as refused:
        await RpcClient(bus).request(subjects.PUSH, PushRequest(), project=OTHER, node="a")
    assert refused.value.code is ErrorCode.UNAVAILABLE

    # The other one syncs all the while; when the obstacle is gone, the project is served by itself.
    write(str(a.database), 1, "meanwhile")
    await until(bus, a, lambda seen: seen.project.mirror_seq >= 2)
    folder.unlink()
    await served(bus, a)

    # Broken while it is served: the journal's file turns into something else, and the node is started anew.
    await a.kill()
    (folder / "journal.db").write_bytes(b"no database" * 100)
    for leftover in ("journal.db-wal", "journal.db-shm"):
        (folder / leftover).unlink(missing_ok=True)
    await a.start()
    await until(bus, a, lambda seen: seen.project.role is Role.PRIMARY)
    assert "journal.db" in (await of_other(bus)).project.error


async def test_a_project_added_twice_at_once_is_hosted_once(make_machine: MakeMachine, bus: Bus) -> None:
    a = make_machine("a", memory=True)
    await a.start()
    await until(bus, a, lambda seen: seen.project.mirror_seq >= 1)
    other = a.home / "other.db"
    shutil.copyfile(SAMPLE, other)
    request = AddProjectRequest(name="other", database=str(other))
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(RpcClient(bus).request(subjects.ADD_PROJECT, request, node="a")) for _ in range(3)]
        # Another name for the same database may not slip in between.
        rival = AddProjectRequest(name="rival", database=str(other))
        refused = group.create_task(refusal_of(bus, rival))
    assert [sorted(item.name for item in task.result().projects) for task in asked] == [["other", PROJECT]] * 3
    assert "already uses" in refused.result().message
    assert a.log.read_text().count('"project served"') == 2
    assert [item["name"] for item in json.loads((state(a) / "projects.json").read_bytes())] == ["other"]


async def test_a_failed_add_leaves_nothing(make_machine: MakeMachine, bus: Bus) -> None:
    a = make_machine("a", memory=True)
    await a.start()
    await until(bus, a, lambda seen: seen.project.mirror_seq >= 1)
    other = a.home / "other.db"
    shutil.copyfile(SAMPLE, other)
    folder = state(a) / "projects" / OTHER
    folder.write_text("in the way")
    request = AddProjectRequest(name="other", database=str(other))
    assert str(folder) in (await refusal_of(bus, request)).message
    assert not (state(a) / "projects.json").exists()
    listed = await RpcClient(bus).request(subjects.PROJECTS, Empty(), node="a")
    assert [item.name for item in listed.projects] == [PROJECT]
    # Registering fails after the project was served: the list is a folder.
    folder.unlink()
    (state(a) / "projects.json.part").mkdir()
    assert "projects.json" in (await refusal_of(bus, request)).message
    assert not folder.exists()
    listed = await RpcClient(bus).request(subjects.PROJECTS, Empty(), node="a")
    assert [item.name for item in listed.projects] == [PROJECT]
    before = memory_rows(other)
    (state(a) / "projects.json.part").rmdir()
    added: ProjectsReply = await RpcClient(bus).request(subjects.ADD_PROJECT, request, node="a")
    assert sorted(item.name for item in added.projects) == ["other", PROJECT]
    assert memory_rows(other) == before
    assert (await of_other(bus)).project.error == ""


async def refusal_of(bus: Bus, request: AddProjectRequest) -> RemoteError:
    with pytest.raises(RemoteError) as refused:
        await RpcClient(bus).request(subjects.ADD_PROJECT, request, node="a")
    return refused.value
