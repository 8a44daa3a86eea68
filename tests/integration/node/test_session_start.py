"""A session start brings the newest memory first, and is answered in time whatever happens."""

import asyncio
import os
import shutil
import sqlite3
import stat
import time
from contextlib import closing
from pathlib import Path

import pytest

from membridge.aio.deadline import Deadline
from membridge.bus.connection import Bus
from membridge.hooks.paths import BEAT_STALE, HookPaths
from membridge.snapshot.push_lease import folder_lock
from membridge.testing.node_process import NodeProcess
from membridge.testing.relay import State, relay
from schemas.identity import canonical_id
from tests.fixtures.hooks import ask, leave, paths_of
from tests.fixtures.machines import PROJECT, SAMPLE, SOON, MakeMachine, command, until
from tests.fixtures.pace import pause

#: A machine that pushes and pulls only when it is asked.
ASKED = {"MEMBRIDGE_AUTO_SYNC": "0"}
WAIT = 5.0


async def serving(machine: NodeProcess) -> HookPaths:
    """Wait until a machine's daemon answers its hooks."""
    paths = paths_of(machine)
    async with asyncio.timeout(SOON):
        while not paths.heartbeat.exists():
            await pause()
    return paths


def observations(path: Path) -> int:
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("SELECT count(*) FROM observations").fetchone()[0])


async def timed(paths: HookPaths, **fields: str) -> tuple[str, float]:
    """Ask as a session start does; return what is said, and the seconds that it took."""
    began = time.monotonic()
    said = await ask(paths, **fields)
    return said, time.monotonic() - began


async def test_what_the_primary_committed_is_in_this_machines_database_when_the_answer_comes(
    make_machine: MakeMachine, bus: Bus
) -> None:
    b = make_machine("b", memory=True, PRIMARY_NODE_ID="b")
    a = make_machine("a", PRIMARY_NODE_ID="b", **ASKED)
    shutil.copyfile(SAMPLE, a.database)
    await b.start()
    await until(bus, b, lambda seen: seen.project.head_seq > 0 and seen.project.unsynced == 0)
    await a.start()
    paths = await serving(a)
    before, _ = await timed(paths)
    rows = observations(a.database)
    await b.write(3, "learned")
    pushed = await command(b, "push")
    said, took = await timed(paths)
    assert observations(a.database) == rows + 3
    assert said.startswith("Membridge: this memory is up to date. It is snapshot ")
    assert f"snapshot {pushed['seq']} of" in said or pushed["outcome"] == "unchanged"
    assert said.endswith(" from b.")
    assert "\n" not in said
    assert said != before
    assert took < WAIT


async def test_what_another_machine_offered_is_in_the_primarys_database_when_the_answer_comes(
    make_machine: MakeMachine, bus: Bus
) -> None:
    a = make_machine("a", memory=True, PRIMARY_NODE_ID="a")
    b = make_machine("b", PRIMARY_NODE_ID="a")
    shutil.copyfile(SAMPLE, b.database)
    await a.start()
    await until(bus, a, lambda seen: seen.project.head_seq > 0 and seen.project.unsynced == 0)
    await b.start()
    await until(bus, b, lambda seen: seen.project.lag == 0 and seen.project.mirror_seq > 0)
    paths, rows = await serving(a), observations(a.database)
    await b.write(2, "learned")
    await command(b, "push")
    said, _ = await timed(paths)
    assert observations(a.database) == rows + 2
    assert said.startswith("Membridge: this memory is up to date. ")


async def test_a_session_start_that_has_the_newest_memory_is_answered_at_once_also_a_hundred_of_them(
    make_machine: MakeMachine, bus: Bus
) -> None:
    a = make_machine("a", memory=True)
    await a.start()
    await until(bus, a, lambda seen: seen.project.head_seq > 0 and seen.project.unsynced == 0)
    paths = await serving(a)
    await timed(paths)
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(timed(paths, session_id=f"s-{number}")) for number in range(100)]
    assert {task.result()[0] for task in asked} == {asked[0].result()[0]}
    assert max(task.result()[1] for task in asked) < WAIT


async def test_without_a_snapshot_it_says_so_and_another_project_gets_nothing(
    make_machine: MakeMachine, bus: Bus
) -> None:
    a = make_machine("a", **ASKED)
    await a.start()
    paths = await serving(a)
    await until(bus, a, lambda seen: seen.running)
    said, _ = await timed(paths, project=PROJECT)
    assert said == f'Membridge: no machine has shared a memory of "{PROJECT}" yet.'
    assert await ask(paths, project="somebody else's") == ""


async def test_off_brings_memory_and_says_nothing(make_machine: MakeMachine, bus: Bus) -> None:
    b = make_machine("b", memory=True, PRIMARY_NODE_ID="b")
    a = make_machine("a", PRIMARY_NODE_ID="b", MEMBRIDGE_HOOKS_CONTEXT="off", **ASKED)
    await b.start()
    await until(bus, b, lambda seen: seen.project.head_seq > 0 and seen.project.unsynced == 0)
    await a.start()
    paths = await serving(a)
    await until(bus, a, lambda seen: seen.running)
    assert await ask(paths) == ""
    assert observations(a.database) == observations(b.database)


async def test_when_empty_brings_the_newest_titles_of_the_folder_while_claude_mems_worker_is_not_there(
    make_machine: MakeMachine, bus: Bus
) -> None:
    a = make_machine("a", memory=True, MEMBRIDGE_HOOKS_CONTEXT="when-empty")
    with closing(sqlite3.connect(a.database)) as connection:
        project = connection.execute("SELECT project FROM observations LIMIT 1").fetchone()[0]
        titles = [
            row[0]
            for row in connection.execute(
                "SELECT title FROM observations WHERE project = ? ORDER BY created_at_epoch DESC, id DESC LIMIT 10",
                (project,),
            )
        ]
    await a.start()
    paths = await serving(a)
    await until(bus, a, lambda seen: seen.project.head_seq > 0)
    said, _ = await timed(paths, cwd=f"/work/{project}")
    line, heading, *listed = said.split("\n")
    assert line.startswith("Membridge: this memory is up to date.")
    assert heading == "Newest memories of this project:"
    assert [one.removeprefix("- ")[:50] for one in listed] == [" ".join(title.split())[:50] for title in titles]
    assert len(said) < 2_000
    said, _ = await timed(paths, cwd="/work/unknown")
    assert "\n" not in said


async def test_a_pull_that_hangs_is_answered_in_time_and_goes_on(make_machine: MakeMachine, bus: Bus) -> None:
    b = make_machine("b", memory=True, PRIMARY_NODE_ID="b")
    a = make_machine("a", PRIMARY_NODE_ID="b", MEMBRIDGE_HOOKS_WAIT_SECONDS="1.5", **ASKED)
    await b.start()
    await until(bus, b, lambda seen: seen.project.head_seq > 0 and seen.project.unsynced == 0)
    await a.start()
    paths = await serving(a)
    await until(bus, a, lambda seen: seen.running)
    folder = paths.spool.parent / "projects" / canonical_id(PROJECT)
    async with folder_lock(folder, deadline=Deadline.after(SOON)):
        said, took = await timed(paths)
        assert took < 1.5
        assert said.startswith("Membridge: this memory may be out of date: pulling the newest memory took too long.")
    async with asyncio.timeout(SOON):
        while not a.database.exists() or observations(a.database) != observations(b.database):
            await pause()


@pytest.mark.parametrize("state", [State.CUT, State.FROZEN])
async def test_while_nats_cannot_be_reached_it_is_answered_in_time_and_says_why(
    make_machine: MakeMachine, bus: Bus, state: State
) -> None:
    host, port = bus.options.urls[0].removeprefix("nats://").split(":")
    async with relay(host, int(port)) as way:
        a = make_machine("a", memory=True, MEMBRIDGE_HOOKS_WAIT_SECONDS="2")
        a.nats_url = f"nats://127.0.0.1:{way.port}"
        await a.start()
        await until(bus, a, lambda seen: seen.project.head_seq > 0 and seen.project.unsynced == 0)
        paths = await serving(a)
        fresh, _ = await timed(paths)
        way.set(state)
        said, took = await timed(paths)
        assert took < 2
        assert said.startswith("Membridge: this memory may be out of date: ")
        assert said.endswith(fresh.removeprefix("Membridge: this memory is up to date. "))
        leave(paths, "Stop")
        way.set(State.OPEN)
        await a.stop()


async def test_what_a_killed_daemon_was_asked_goes_and_a_stopped_one_leaves_nothing(
    make_machine: MakeMachine, bus: Bus
) -> None:
    a = make_machine("a", memory=True)
    await a.start()
    paths = await serving(a)
    await a.kill()
    asked = paths.questions / "of-nobody"
    asked.write_bytes(b"membridge 1 SessionStart -\n{}\n")
    os.utime(paths.heartbeat, (0, 0))
    await a.start()
    async with asyncio.timeout(SOON):
        while not paths.heartbeat.exists() or paths.heartbeat.stat().st_mtime == 0:
            await pause()
    await timed(paths)
    assert not asked.exists()
    where = paths.run.resolve()
    assert {stat.S_IMODE(path.stat().st_mode) for path in (where, paths.questions, paths.answers)} == {0o700}
    await a.stop()
    assert not where.exists()
    assert not paths.run.is_symlink()


async def test_a_second_daemon_of_the_same_home_ends_and_the_first_one_still_answers(
    make_machine: MakeMachine, bus: Bus
) -> None:
    first = make_machine("a", memory=True)
    await first.start()
    paths = await serving(first)
    second = NodeProcess("a", first.home, first.nats_url, PROJECT)
    await second.start()
    assert second.process is not None
    assert await second.process.wait() != 0
    await timed(paths)
    assert time.time_ns() / 1e9 - paths.heartbeat.stat().st_mtime < BEAT_STALE


async def test_a_folder_of_questions_that_was_removed_is_there_again(make_machine: MakeMachine, bus: Bus) -> None:
    a = make_machine("a", memory=True)
    await a.start()
    paths = await serving(a)
    shutil.rmtree(paths.run.resolve())
    async with asyncio.timeout(SOON):
        while not paths.questions.exists():
            await pause()
    await timed(paths)
