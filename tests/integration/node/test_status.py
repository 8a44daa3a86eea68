"""`status` answers at once from what the node keeps, and says of when each number is."""

import asyncio
import shutil
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, cast

import pytest

from membridge.aio import threads
from membridge.aio.deadline import Deadline
from membridge.bus.connection import Bus
from membridge.bus.kv import open_bucket
from membridge.merge import audit
from membridge.merge.conflicts import Journal
from membridge.node import project as project_module
from membridge.node.figures import Figures
from membridge.node.jobs import Jobs, RequestContext
from membridge.node.operations import Operations
from membridge.node.project import Bounds, Project
from membridge.node.roles import NoRoles
from membridge.snapshot import push
from membridge.snapshot.push_lease import PushLeaseOptions
from membridge.system import clock
from schemas import buckets
from schemas.node import Empty, StatusReply
from schemas.snapshot import PushReply, PushRequest
from tests.fixtures.databases import add_observation, connect, make_database, rows_of
from tests.fixtures.lanes import Box, MakeBox, soon
from tests.fixtures.machines import SAMPLE

if TYPE_CHECKING:
    from membridge.node.examination import Examination

pytestmark = pytest.mark.parametrize("lane_store", ["jetstream"], indirect=True)


class Node:
    """A project with its figures, and what answers for it."""

    def __init__(self, box: Box, bus: Bus, project: Project) -> None:
        self.box, self.project = box, project
        self.jobs = Jobs(bus, box.lane.project, box.lane.node)
        self._operations = Operations(project, self.jobs, None, cast("Examination", None))

    async def status(self) -> StatusReply:
        return await self._operations.status(Empty(), RequestContext(by="test", deadline=soon()))


@asynccontextmanager
async def serving(box: Box, bus: Bus) -> AsyncGenerator[Node]:
    """Serve the memory of a box, pushed once and counted."""
    shutil.copyfile(SAMPLE, box.database)
    await box.push()
    leases = await open_bucket(bus, buckets.PUSH_LEASES, replicas=1, deadline=soon())
    project = Project(bus, box.lane, NoRoles(), leases, Bounds(PushLeaseOptions(), timeout=30.0))
    async with asyncio.TaskGroup() as group:
        keeping = group.create_task(project.figures.run())
        yield Node(box, bus, project)
        keeping.cancel()


@contextmanager
def held(monkeypatch: pytest.MonkeyPatch, place: object, name: str):
    """Let a blocking function wait in the middle; yield what is set when it waits, and what lets it go on."""
    waits, go_on, before = threading.Event(), threading.Event(), getattr(place, name)

    def waiting(*args: object, **kwargs: object) -> object:
        waits.set()
        assert go_on.wait(60.0)
        return before(*args, **kwargs)

    monkeypatch.setattr(place, name, waiting)
    try:
        yield waits, go_on
    finally:
        go_on.set()


async def test_a_write_is_in_the_next_answer_and_each_number_is_of_now(make_box: MakeBox, bus: Bus) -> None:
    async with serving(make_box("a"), bus) as node:
        before = await node.status()
        add_observation(node.box.database, "new")
        after = await node.status()

    assert before.project.unsynced == 0 < after.project.unsynced
    assert after.project.rows["observations"] == before.project.rows["observations"] + 1
    assert (after.project.head_seq, after.project.mirror_seq, after.project.lag) == (1, 1, 0)
    times = (after.project.head_at, after.project.mirror_at, after.project.counted_at, after.project.journal_at)
    assert all(before.answered_at <= at <= after.answered_at for at in times)


async def test_a_memory_that_came_just_now_is_not_said_to_have_no_rows(make_box: MakeBox) -> None:
    a, b = make_box("a"), make_box("b")
    make_database(a.database)
    await a.push()
    is_busy = False
    figures = Figures(b.lane, lambda: is_busy, lambda: 0.0)
    await figures.refresh()
    assert (figures.kept.rows, figures.kept.counted_at != "") == ({}, True)

    is_busy = True
    await b.pull()
    await figures.refresh()
    assert (figures.kept.mirror_seq, figures.kept.rows, figures.kept.counted_at) == (1, {}, "")

    is_busy = False
    await figures.refresh()
    counted = rows_of(b.database, "SELECT count(*) FROM observations")[0][0]
    assert (figures.kept.rows["observations"], figures.kept.counted_at != "") == (counted, True)


async def test_while_a_push_has_the_database_the_numbers_of_before_are_the_answer(
    make_box: MakeBox, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(make_box("a"), bus) as node, asyncio.TaskGroup() as group:
        before = await node.status()
        index, waits, go_on, commit = node.box.lane.index, asyncio.Event(), asyncio.Event(), push.push

        async def held_up(*args: Any, **kwargs: Any) -> PushReply:
            with index._lock:
                waits.set()
                await go_on.wait()
            return await commit(*args, **kwargs)

        monkeypatch.setattr(push, "push", held_up)
        add_observation(node.box.database, "pushed")
        pushing = group.create_task(
            node.jobs.run(
                "push", lambda progress: node.project.push(PushRequest(), progress, deadline=node.project.deadline())
            )
        )
        await waits.wait()
        during = await node.status()
        assert not pushing.done()
        go_on.set()
        await pushing
        after = await node.status()

    assert during.project.counted_at == before.project.counted_at < during.answered_at
    assert (during.project.unsynced, during.project.mirror_seq) == (0, 1)
    assert (after.project.unsynced, after.project.mirror_seq, after.project.head_seq) == (0, 2, 2)
    assert after.project.counted_at > during.answered_at


async def test_while_a_comparison_of_everything_has_the_index_an_answer_waits_only_a_moment(
    make_box: MakeBox, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(make_box("a"), bus) as node, asyncio.TaskGroup() as group:
        before = await node.status()
        monkeypatch.setattr(project_module, "AT_ONCE", 3_600.0)
        with held(monkeypatch, audit._Comparison, "go_on") as (waits, go_on):
            slicing = group.create_task(node.project.audit_slice())
            await asyncio.to_thread(waits.wait, 60.0)
            add_observation(node.box.database, "new")
            async with asyncio.timeout(30.0):
                during = await node.status()
            assert not slicing.done()
            go_on.set()
            await slicing
        after = await node.status()

    assert before.project.counted_at <= during.project.counted_at
    assert during.project.unsynced == 0 < after.project.unsynced


async def test_an_answer_needs_neither_the_index_nor_the_journal_nor_a_free_thread(
    make_box: MakeBox, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As while an audit or another long look has them."""
    go_on = threading.Event()
    async with serving(make_box("a"), bus) as node, asyncio.TaskGroup() as group:
        before = await node.status()
        monkeypatch.setattr(project_module, "AT_ONCE", 0.05)
        with held(monkeypatch, Journal, "counts") as (waits, _):
            blocked = [group.create_task(threads.run(go_on.wait, 60.0)) for _ in range(threads.THREADS)]
            add_observation(node.box.database, "new")
            during = await node.status()
            go_on.set()
            for task in blocked:
                await task
            assert await asyncio.to_thread(waits.wait, 60.0)
            later = await node.status()
    assert before.project.counted_at
    assert before.project.counted_at <= during.project.counted_at < during.answered_at
    assert (during.project.unsynced, later.project.unsynced) == (0, 0)


async def test_a_database_that_another_program_has_locked_is_not_waited_for(
    make_box: MakeBox, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(make_box("a"), bus) as node:
        before = await node.status()
        monkeypatch.setattr(project_module, "AT_ONCE", 0.05)
        node.box.lane.index.close()
        writer = connect(node.box.database)
        writer.execute("PRAGMA journal_mode = DELETE").fetchall()
        writer.execute("BEGIN EXCLUSIVE; INSERT INTO sync_state VALUES ('a', 'b')")
        during = await node.status()
        writer.execute("ROLLBACK")
        writer.close()

    assert during.project.rows == before.project.rows
    assert during.project.counted_at < during.answered_at


async def test_a_head_that_does_not_come_is_the_one_that_is_known(
    make_box: MakeBox, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(make_box("a"), bus) as node:
        before = await node.status()
        monkeypatch.setattr(project_module, "AT_ONCE", 0.05)

        async def silent(_replica: object, *, deadline: Deadline) -> None:
            del deadline
            await asyncio.Event().wait()

        monkeypatch.setattr("membridge.commits.heads.read", silent)
        during = await node.status()

    assert (during.project.head_seq, during.project.head_at) == (1, before.project.head_at)
    assert during.answered_at > during.project.head_at


async def test_a_database_that_cannot_be_read_is_said_until_it_can(make_box: MakeBox, bus: Bus) -> None:
    async with serving(make_box("a"), bus) as node:
        assert (await node.status()).project.error == ""
        saved = node.box.database.read_bytes()
        node.box.lane.index.close()
        node.box.database.write_bytes(b"not a database" * 1_000)
        wrong = await node.status()
        node.box.database.write_bytes(saved)
        node.project.figures.changed()
        right = await node.status()

    assert str(node.box.database) in wrong.project.error
    assert right.project.error == ""
    assert clock.known(right.project.counted_at) is not None
