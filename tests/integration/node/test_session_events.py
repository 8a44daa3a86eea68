"""Events of Claude Code sessions, from a machine's spool to its project's stream: each one, in order, once."""

import asyncio
import shutil
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import msgspec
import pytest

from membridge.aio.deadline import Deadline
from membridge.aio.tasks import background
from membridge.bus import jetstream
from membridge.bus.connection import Bus, connect
from membridge.bus.jetstream import StreamConfig, nanoseconds
from membridge.bus.options import BusOptions
from membridge.errors import UnavailableError
from membridge.hooks import spool
from membridge.hooks.folder_watch import has_any
from membridge.hooks.paths import HookPaths, hook_paths
from membridge.hooks.reader import SpoolReader
from membridge.node.projects_part import Hosted, ProjectsPart
from membridge.node.session_events import SessionEvents
from membridge.settings import load
from membridge.testing.relay import relay
from schemas import streams, subjects
from schemas.events import SessionEvent, SessionMoment, SnapshotCommitted, decode_event
from schemas.identity import ProjectId, canonical_id
from tests.fixtures.hooks import SESSION, leave, leave_bytes, paths_of, waiting
from tests.fixtures.machines import PROJECT, SAMPLE, SOON, MakeMachine, observations_of, until
from tests.fixtures.nats import QUICK, Restartable
from tests.fixtures.pace import pause
from tests.fixtures.relay import Losses

ID = canonical_id(PROJECT)
#: What a machine that would not push by itself for a minute is set to.
CALM = {"MEMBRIDGE_QUIET_SECONDS": "50", "MEMBRIDGE_QUIET_MAX_SECONDS": "60"}


async def kept(bus: Bus, node: str = "a") -> list[SessionEvent]:
    """Return the session events of a node that the stream has, oldest first."""
    subject = subjects.fill(subjects.EVENT, project=ID, kind="session", node=node)
    read = jetstream.read_from(bus, streams.EVENTS.name, subject, start=1, deadline=Deadline.after(30.0))
    return [found async for message in read if isinstance(found := decode_event(message.body), SessionEvent)]


async def emptied(paths: HookPaths) -> None:
    """Wait until nothing waits in the spool."""
    async with asyncio.timeout(3 * SOON):
        while has_any(paths.new):
            await pause()


class Host:
    """A stand-in for what serves a node's projects: their connection alone."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    def hosted(self, project: ProjectId) -> Hosted | None:
        assert project == ID
        return Hosted(self._bus, UnavailableError("not served"), None, None, None)

    def count(self) -> int:
        return 1


def reader_of(bus: Bus, home: Path) -> tuple[HookPaths, SpoolReader]:
    """Return a spool and a reader of it in this process."""
    settings = load({"CLAUDE_PROJECT_ID": PROJECT, "MEMBRIDGE_NODE_ID": "a"}, home)
    paths = hook_paths(settings.node.state_dir)
    return paths, SpoolReader(paths, SessionEvents(settings, cast("Sequence[ProjectsPart]", [Host(bus)])))


@asynccontextmanager
async def reading(reader: SpoolReader) -> AsyncGenerator[None]:
    async with background() as group:
        group.create_task(reader.run())
        yield


async def test_a_session_is_told_to_the_projects_machines_without_its_prompts(
    make_machine: MakeMachine, bus: Bus
) -> None:
    machine = make_machine("a", memory=True)
    paths = paths_of(machine)
    leave(paths, "SessionStart", source="startup")
    leave(paths, "UserPromptSubmit", PROJECT, prompt="my secret plan", prompt_id="p-1")
    async with bus.subscribe(f"membridge.{ID}.event.session.*") as heard:
        await machine.start()
        await emptied(paths)
        leave(paths, "Stop", ID, prompt_id="p-1")
        leave_bytes(paths, b"no event")
        leave(paths, "SessionEnd", reason="logout")
        async with asyncio.timeout(SOON):
            bodies = [(await anext(heard)).body for _ in range(4)]
        await emptied(paths)
    found = [decode_event(body) for body in bodies]
    assert found == await kept(bus)
    told = [one for one in found if isinstance(one, SessionEvent)]
    assert [one.moment for one in told] == [*SessionMoment]
    assert {(one.session, one.node, one.folder, one.prompt) for one in told} == {(SESSION, "a", "/work", None)}
    assert [(one.source, one.prompt_id, one.reason) for one in told] == [
        ("startup", "", ""), ("", "p-1", ""), ("", "p-1", ""), ("", "", "logout"),
    ]  # fmt: skip
    assert all(b"secret plan" not in body for body in bodies)
    assert len(list(paths.damaged.iterdir())) == 1


async def test_prompts_are_told_where_the_settings_say_so(make_machine: MakeMachine, bus: Bus) -> None:
    machine = make_machine("a", memory=True, MEMBRIDGE_HOOKS_INCLUDE_PROMPTS="1")
    leave(paths_of(machine), "UserPromptSubmit", prompt="my plan")
    await machine.start()
    await emptied(paths_of(machine))
    assert [one.prompt for one in await kept(bus)] == ["my plan"]


@pytest.mark.parametrize("auto", ["1", "0"])
@pytest.mark.parametrize("event", ["Stop", "SessionEnd"])
async def test_what_a_session_learned_is_pushed_when_it_stops_or_ends(
    make_machine: MakeMachine, bus: Bus, event: str, auto: str
) -> None:
    machine = make_machine("a", memory=True, MEMBRIDGE_AUTO_SYNC=auto, **CALM)
    async with bus.subscribe(f"membridge.{ID}.event.snapshot_committed.*") as commits:
        await machine.start()
        await until(bus, machine, lambda seen: seen.primary == "a")
        seq = 0
        if auto == "1":
            seq = await committed(commits)
        await machine.write(3, "learned")
        leave(paths_of(machine), event)
        assert await committed(commits) > seq
    await until(bus, machine, lambda seen: seen.project.unsynced == 0)


async def committed(commits: "AsyncGenerator[object]") -> int:
    async with asyncio.timeout(SOON):
        while True:
            event = decode_event((await anext(commits)).body)  # type: ignore[attr-defined]
            assert isinstance(event, SnapshotCommitted)
            if event.rows:
                return event.seq


async def test_what_a_secondarys_session_learned_reaches_the_primary_at_its_stop(
    make_machine: MakeMachine, bus: Bus
) -> None:
    a, b = make_machine("a", memory=True, PRIMARY_NODE_ID="a"), make_machine("b", PRIMARY_NODE_ID="a", **CALM)
    shutil.copyfile(SAMPLE, b.database)
    await a.start()
    await until(bus, a, lambda seen: seen.project.head_seq > 0 and seen.project.unsynced == 0)
    rows = await observations_of(bus, a)
    await b.start()
    await until(bus, b, lambda seen: seen.project.lag == 0 and seen.project.mirror_seq > 0)
    await b.write(2, "learned")
    leave(paths_of(b), "Stop")
    await until(bus, a, lambda seen: seen.project.rows["observations"] == rows + 2)


async def test_events_wait_for_nats_and_are_published_once_when_it_is_back(
    make_machine: MakeMachine, restartable: Restartable
) -> None:
    machine = make_machine("a", memory=True)
    machine.nats_url = restartable.url
    paths = paths_of(machine)
    await machine.start()
    options = BusOptions(urls=(restartable.url,), name="test", pace=QUICK)
    async with connect(options, deadline=Deadline.after(5.0)) as bus:
        await until(bus, machine, lambda seen: seen.primary == "a")
        leave(paths, "Stop", n=0, prompt_id="p-0")
        await emptied(paths)
        restartable.kill()
        for number in range(1, 20):
            leave(paths, "Stop", prompt_id=f"p-{number}")
        generation = bus.generation
        await machine.kill()
        assert len(waiting(paths)) == 19
        restartable.start()
        await bus.wait_generation(generation)
        await machine.start()
        await emptied(paths)
        assert [one.prompt_id for one in await kept(bus)] == [f"p-{number}" for number in range(20)]


async def test_a_hundred_sessions_at_once_and_ten_thousand_files_are_published_each_once_and_in_order(
    make_machine: MakeMachine, bus: Bus
) -> None:
    machine = make_machine("a", memory=True)
    paths = paths_of(machine)
    for number in range(10_000):
        leave(paths, "UserPromptSubmit", session_id=f"s-{number % 100}", prompt_id=f"p-{number:05d}")
    await machine.start()
    await emptied(paths)
    found = [one.prompt_id for one in await kept(bus)]
    assert len(found) == 10_000
    assert found == sorted(set(found))


async def test_old_and_new_hooks_beside_each_other_tell_an_event_once(bus: Bus, tmp_path: Path) -> None:
    paths, reader = reader_of(bus, tmp_path)
    async with reading(reader):
        for event in ("SessionStart", "Stop", "SessionEnd"):
            leave(paths, event, PROJECT)
            leave(paths, event)
        await emptied(paths)
    assert [one.moment.value for one in await kept(bus)] == ["started", "stopped", "ended"]


class KilledError(BaseException):
    """Ends a reader between two of its steps."""


@pytest.mark.parametrize("forgotten", [False, True])
async def test_a_daemon_that_is_killed_between_publishing_and_deleting_tells_an_event_once(
    bus: Bus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forgotten: bool
) -> None:
    paths, reader = reader_of(bus, tmp_path)
    for number in range(3):
        leave(paths, "Stop", prompt_id=f"p-{number}")

    def killed(where: HookPaths, name: str) -> None:
        raise KilledError

    if forgotten:
        await forget_ids_at_once(bus)
    with monkeypatch.context() as patch:
        patch.setattr(spool, "remove", killed)
        with pytest.raises(BaseExceptionGroup):
            async with asyncio.TaskGroup() as group:
                group.create_task(reader.run())
    assert len(waiting(paths)) == 3
    if forgotten:
        # The server has forgotten the id by then.
        await pause()
        await pause()
    async with reading(reader_of(bus, tmp_path)[1]):
        await emptied(paths)
    assert [one.prompt_id for one in await kept(bus)] == ["p-0", "p-1", "p-2"]


@pytest.mark.parametrize("forgotten", [False, True])
async def test_an_event_whose_answer_is_lost_is_told_once(bus: Bus, tmp_path: Path, forgotten: bool) -> None:
    losses = Losses()
    host, port = bus.options.urls[0].removeprefix("nats://").split(":")
    if forgotten:
        await forget_ids_at_once(bus)
    async with relay(host, int(port), lambda: losses.line("nats")) as way:
        options = BusOptions(urls=(f"nats://127.0.0.1:{way.port}",), name="lossy", pace=QUICK)
        async with connect(options, deadline=Deadline.after(5.0)) as lossy:
            paths, reader = reader_of(lossy, tmp_path)
            losses.arm(2, r"event\.session")
            for number in range(4):
                leave(paths, "Stop", prompt_id=f"p-{number}")
            async with reading(reader):
                await emptied(paths)
    assert losses.lost.is_set()
    assert [one.prompt_id for one in await kept(bus)] == [f"p-{number}" for number in range(4)]


async def forget_ids_at_once(bus: Bus) -> None:
    """Have the server forget the ids of messages after a tenth of a second instead of two minutes."""
    stream = streams.EVENTS
    config = StreamConfig(
        name=stream.name,
        subjects=list(stream.subjects),
        retention=stream.retention.value,
        max_bytes=stream.max_bytes,
        max_age=nanoseconds(stream.max_age),
        duplicate_window=nanoseconds(0.1),
    )
    await jetstream.ensure_stream(bus, config, deadline=Deadline.after(5.0))
    info = await bus.request(f"$JS.API.STREAM.INFO.{stream.name}", deadline=Deadline.after(5.0))
    assert msgspec.json.decode(info.body)["config"]["duplicate_window"] == nanoseconds(0.1)
