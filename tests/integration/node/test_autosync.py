"""Auto-sync goes on: whatever a round ended with, what is unsynced is looked at again."""

import asyncio
import shutil
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from membridge.aio.deadline import Deadline
from membridge.bus.connection import Bus
from membridge.bus.kv import open_bucket
from membridge.bus.watch import watch
from membridge.claudemem.changes import ChangeWatcher
from membridge.claudemem.memory import memory_rows
from membridge.commits import heads, layout
from membridge.commits.progress import ProgressTracker
from membridge.errors import LeaseLostError, MembridgeError, NotFoundError, ShrinkRefusedError
from membridge.merge import row_index
from membridge.merge.row_index import RowIndex
from membridge.node.autosync import AutoSync
from membridge.node.jobs import Jobs
from membridge.node.project import Bounds, Project
from membridge.node.roles import NoRoles
from membridge.node.rules import Quiet
from membridge.snapshot import standing
from membridge.snapshot.lane import Lane
from membridge.snapshot.push_lease import PushLeaseOptions
from membridge.testing.writer import write
from schemas import buckets
from schemas.identity import Seq
from schemas.snapshot import PushReply, PushRequest
from tests.fixtures.databases import add_observation, execute
from tests.fixtures.lanes import Box, MakeBox, soon
from tests.fixtures.machines import SAMPLE

pytestmark = pytest.mark.parametrize("lane_store", ["jetstream"], indirect=True)
#: Seconds between two looks: one that is soon, and one that no test waits for.
SOON, NEVER = 1.0, 3600.0


def with_memory(box: Box) -> Box:
    shutil.copyfile(SAMPLE, box.database)
    return box


async def project_of(box: Box, bus: Bus) -> Project:
    locks = await open_bucket(bus, buckets.PUSH_LEASES, replicas=1, deadline=soon())
    return Project(bus, box.lane, NoRoles(), locks, Bounds(PushLeaseOptions(), timeout=30.0))


@asynccontextmanager
async def syncing(
    project: Project, bus: Bus, look_again: float, told: Callable[[], None] = lambda: None
) -> AsyncGenerator[AutoSync]:
    """Run auto-sync during the body, quick but for its looks."""
    sync = AutoSync(
        project,
        Jobs(bus, project.lane.project, project.lane.node),
        quiet=Quiet(after=0.05, at_most=0.5),
        look_again=look_again,
        on_change=told,
    )
    async with asyncio.TaskGroup() as group:
        running = group.create_task(sync.run(lambda: None))
        yield sync
        running.cancel()


async def head_at(box: Box, seq: Seq) -> None:
    """Wait until the head is at `seq`."""
    async with asyncio.timeout(30.0):
        async for change in watch(box.lane.heads, box.lane.project):
            if change.entry is not None and change.entry.value.record.seq >= seq:
                return


def failing(monkeypatch: pytest.MonkeyPatch, project: Project, *errors: Exception) -> list[Exception]:
    """Let the next pushes fail, one with each error; return what is left of them."""
    left, push = [*errors], project.push

    async def one(request: PushRequest, progress: ProgressTracker, *, deadline: Deadline) -> PushReply:
        if left:
            raise left.pop(0)
        return await push(request, progress, deadline=deadline)

    monkeypatch.setattr(project, "push", one)
    return left


async def test_a_round_that_may_go_well_is_tried_again_at_once_and_no_failure_ends_the_rest(
    make_box: MakeBox, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lost lock, a missing object and an error that nobody thought of: none of them is the end."""
    box = with_memory(make_box("a"))
    project = await project_of(box, bus)
    left = failing(monkeypatch, project, LeaseLostError("lost"), NotFoundError("gone"), RuntimeError("unthought of"))
    async with syncing(project, bus, NEVER):
        await head_at(box, 1)
        assert left == []
        write(str(box.database), 1, "afterwards")
        await head_at(box, 2)


async def test_what_cannot_go_well_is_looked_at_again_after_a_while(
    make_box: MakeBox, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = with_memory(make_box("a"))
    project = await project_of(box, bus)
    errors: list[MembridgeError] = [ShrinkRefusedError("too few"), ShrinkRefusedError("too few")]
    left = failing(monkeypatch, project, *errors)
    async with syncing(project, bus, SOON):
        await head_at(box, 1)
    assert left == []


async def test_a_damaged_object_that_was_mended_is_pulled_without_any_news_of_it(make_box: MakeBox, bus: Bus) -> None:
    a, b = with_memory(make_box("a")), make_box("b")
    await a.push()
    known = await heads.read(a.lane, deadline=soon())
    assert known is not None
    assert known.record.object is not None
    key, store = known.record.object.key, a.lane.store
    assert key.startswith(layout.snapshots(a.lane.project))
    body = await store.get(key, deadline=soon())
    await store.put(key, b"damaged", if_absent=False, deadline=soon())
    project = await project_of(b, bus)
    told = asyncio.Event()
    async with asyncio.timeout(60.0), syncing(project, bus, SOON, told.set) as sync:
        await told.wait()
        assert _fails(sync)
        await store.put(key, body, if_absent=False, deadline=soon())
        while _fails(sync):
            told.clear()
            await told.wait()
    assert memory_rows(a.database) == memory_rows(b.database)


async def test_a_change_that_no_watcher_saw_is_found_and_a_watcher_that_failed_begins_anew(
    make_box: MakeBox, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = with_memory(make_box("a"))
    project = await project_of(box, bus)
    failed: list[str] = []
    asked, loop = asyncio.Event(), asyncio.get_running_loop()

    def blind(_: ChangeWatcher) -> bool:
        if not failed:
            failed.append("once")
            raise OSError(5, "Input/output error")
        loop.call_soon_threadsafe(asked.set)
        return False

    async with syncing(project, bus, SOON):
        await head_at(box, 1)
        monkeypatch.setattr(ChangeWatcher, "changed", blind)
        write(str(box.database), 1, "unseen")
        await head_at(box, 2)
        async with asyncio.timeout(60.0):
            await asked.wait()
    assert failed


async def test_each_wal_is_read_before_it_begins_anew_though_nothing_is_pushed(
    make_box: MakeBox, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A WAL that began anew unread costs a comparison of everything."""
    box = with_memory(make_box("a"))
    # As a daemon's: it keeps its connection.
    index = RowIndex(box.lane.folder / "lasting.db", box.database, lasting=True)
    project = await project_of(replace(box, lane=replace(box.lane, index=index)), bus)
    monkeypatch.setattr("membridge.node.rules.quiet_wait", lambda *_: NEVER)
    loop, complete, feed = asyncio.get_running_loop(), list[object](), standing.feed
    written, fed = list[int](), asyncio.Queue[list[int]]()

    def feeding(lane: Lane, *, deadline: Deadline) -> None:
        # A feed that began before a row was written has not read it.
        before = [*written]
        feed(lane, deadline=deadline)
        loop.call_soon_threadsafe(fed.put_nowait, before)

    class Log:
        def debug(self, event: str, **fields: object) -> None:
            complete.append((event, fields["reason"]))

    monkeypatch.setattr(standing, "feed", feeding)
    async with syncing(project, bus, NEVER):
        await head_at(box, 1)
        await project.count_unsynced(deadline=soon())
        monkeypatch.setattr(row_index, "log", Log())
        for number in range(6):
            execute(box.database, "PRAGMA wal_checkpoint(RESTART)")
            add_observation(box.database, f"row {number}")
            written.append(number)
            async with asyncio.timeout(30.0):
                while number not in await fed.get():
                    pass
        assert await project.count_unsynced(deadline=soon()) >= 6
    index.close()
    assert complete == []


def _fails(sync: AutoSync) -> bool:
    return sync.last_error is not None
