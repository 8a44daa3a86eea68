"""The daily comparison of everything: when it runs, what it says, and what it makes way for."""

import asyncio
import shutil
from dataclasses import replace
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from membridge.bus.connection import Bus
from membridge.bus.kv import open_bucket
from membridge.merge import audit, row_index
from membridge.merge.audit import AUDIT_FILE, AuditNote, noted
from membridge.merge.row_index import INDEX_FILE, RowIndex
from membridge.node import daily_audit
from membridge.node.daily_audit import DailyAudit
from membridge.node.jobs import Jobs
from membridge.node.project import Bounds, Project
from membridge.node.roles import NoRoles
from membridge.snapshot import push
from membridge.snapshot.push_lease import PushLeaseOptions
from membridge.system import clock
from schemas import buckets
from schemas.snapshot import PushReply, PushRequest
from tests.fixtures.databases import add_observation
from tests.fixtures.lanes import Box, MakeBox, soon
from tests.fixtures.machines import SAMPLE

pytestmark = pytest.mark.parametrize("lane_store", ["jetstream"], indirect=True)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small slices without pauses."""
    monkeypatch.setattr(audit, "SLICE", 0.0005)
    for name in ("PAUSE", "PAUSES", "QUIET"):
        monkeypatch.setattr(daily_audit, name, 0.0)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the log says."""
    lines: list[str] = []

    class Log:
        def info(self, event: str, **fields: object) -> None:
            lines.append(f"{event} {fields}")

        error = debug = info

    monkeypatch.setattr(daily_audit, "log", Log())
    return lines


async def served(box: Box, bus: Bus, *, since: timedelta) -> Project:
    """Serve the memory of a box, pushed once, whose audits began some time ago."""
    shutil.copyfile(SAMPLE, box.database)
    await box.push()
    note = AuditNote(since=clock.stamp(clock.now() - since))
    (box.lane.folder / AUDIT_FILE).write_bytes(msgspec.json.encode(note))
    return await project_of(box, bus)


async def project_of(box: Box, bus: Bus) -> Project:
    """Open the project as a daemon does: its index keeps a connection."""
    box.lane.index.close()
    lane = replace(box.lane, index=RowIndex(box.lane.folder / INDEX_FILE, box.database, lasting=True))
    leases = await open_bucket(bus, buckets.PUSH_LEASES, replicas=1, deadline=soon())
    return Project(bus, lane, NoRoles(), leases, Bounds(PushLeaseOptions(), timeout=30.0))


async def turns(daily: DailyAudit, box: Box, *, most: int = 10_000) -> int:
    """Let it do one turn after the other until an audit is complete; return how many."""
    for number in range(most):
        assert await daily._turn() >= 0.0
        if noted(box.lane.folder / AUDIT_FILE).ended_at:
            return number + 1
    return 0


async def test_it_runs_when_a_day_has_passed_and_says_so(make_box: MakeBox, bus: Bus, said: list[str]) -> None:
    box = make_box("a")
    project = await served(box, bus, since=timedelta(hours=25))

    assert await turns(DailyAudit(project), box) > 2

    assert said == ["all rows compared {'missed': 0, 'restarts': 0}"]
    assert (await project.presence()).audited_at
    # The next one is due tomorrow.
    assert await DailyAudit(project)._turn() >= daily_audit.ASK_AGAIN / 2


async def test_it_does_not_run_before_a_day_has_passed(make_box: MakeBox, bus: Bus, said: list[str]) -> None:
    box = make_box("a")
    project = await served(box, bus, since=timedelta(hours=23))

    assert await turns(DailyAudit(project), box, most=3) == 0
    assert said == []


async def test_it_waits_for_a_quiet_database_but_not_for_ever(
    make_box: MakeBox, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(daily_audit, "QUIET", 3_600.0)
    box, late = make_box("a"), make_box("b")
    project = await served(box, bus, since=timedelta(hours=25))
    assert await turns(DailyAudit(project), box, most=3) == 0

    shutil.copyfile(SAMPLE, late.database)
    await late.pull()
    note = AuditNote(since=clock.stamp(clock.now() - timedelta(hours=49)))
    (late.lane.folder / AUDIT_FILE).write_bytes(msgspec.json.encode(note))
    assert await turns(DailyAudit(await project_of(late, bus)), late)


async def test_what_had_been_missed_is_an_error_in_the_log_and_a_number(
    make_box: MakeBox, bus: Bus, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    box = make_box("a")
    project = await served(box, bus, since=timedelta(hours=25))
    await project.count_unsynced(deadline=soon())
    add_observation(box.database, "missed")
    with monkeypatch.context() as blind:
        blind.setattr(row_index, "_take_in", lambda *_: True)
        assert await project.count_unsynced(deadline=soon()) == 0

    await turns(DailyAudit(project), box)

    assert said[0].startswith("rows had been missed {'rows': ")
    presence = await project.presence()
    # The slice that finds the first one heals both.
    assert 1 <= presence.missed <= presence.unsynced == 2
    assert presence.audited_at


async def test_it_makes_way_for_a_push_and_begins_again_with_the_new_mirror(
    make_box: MakeBox, bus: Bus, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    box = make_box("a")
    project = await served(box, bus, since=timedelta(hours=25))
    daily, jobs = DailyAudit(project), Jobs(bus, box.lane.project, box.lane.node)
    for _ in range(2):
        await daily._turn()
    assert (await project.audited()).is_under_way
    going_on, goes_on, commit = asyncio.Event(), asyncio.Event(), push.push

    async def held(*args: Any, **kwargs: Any) -> PushReply:
        going_on.set()
        await goes_on.wait()
        return await commit(*args, **kwargs)

    monkeypatch.setattr(push, "push", held)
    async with asyncio.TaskGroup() as group:
        add_observation(box.database, "pushed between two slices")
        group.create_task(jobs.run("push", lambda progress: project.push(PushRequest(), progress, deadline=soon())))
        await going_on.wait()
        before = await project.audited()
        assert await daily._turn() == daily_audit.IDLE_AGAIN
        assert await project.audit_slice() is None
        assert await project.audited() == before
        goes_on.set()

    assert await turns(daily, box)
    assert said == ["all rows compared {'missed': 0, 'restarts': 1}"]


async def test_a_project_without_a_snapshot_has_nothing_to_compare(make_box: MakeBox, bus: Bus) -> None:
    box = make_box("a")
    shutil.copyfile(SAMPLE, box.database)
    alone = await project_of(box, bus)

    assert await alone.audit_slice() is None
    assert not (await alone.audited()).is_under_way
