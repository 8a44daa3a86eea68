"""Operations of a project that cannot do all they should: they never say that there was nothing to do."""

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from membridge.aio.deadline import Deadline
from membridge.bus.connection import Bus
from membridge.bus.kv import open_bucket
from membridge.claudemem.memory import memory_rows
from membridge.commits import heads
from membridge.commits.progress import ProgressTracker
from membridge.errors import DiskFullError, LeaseHeldError, ObjectMissingError
from membridge.leadership.view import LeadershipView
from membridge.node.project import Bounds, Project
from membridge.objectstore.protocol import ObjectStore
from membridge.snapshot import recover, rollback_guard
from membridge.snapshot.push_lease import PushLeaseOptions
from membridge.system import files
from schemas import buckets
from schemas.commits import RecoverRequest, RecoverySource
from schemas.identity import NodeId
from schemas.leadership import Policy, Role
from schemas.snapshot import PullOutcome, PullRequest, PushOutcome, PushRequest
from tests.fixtures.databases import add_observation, make_database, titles
from tests.fixtures.lanes import Box, MakeBox, opened_store, soon


class Leading:
    """Primary of epoch 1, for as long as it is asked."""

    enabled = True

    def view(self) -> LeadershipView:
        return LeadershipView(Role.PRIMARY, 1, NodeId("a"), NodeId("a"), Policy.MANUAL, None)

    def epoch_for_commit(self) -> int:
        return 1

    async def changed(self, since: LeadershipView) -> LeadershipView:
        return since

    async def give_way(self, node: NodeId, *, deadline: object) -> None:
        raise AssertionError(node, deadline)


@pytest.fixture
async def lane_store(bus: Bus) -> AsyncGenerator[ObjectStore]:
    """The store in NATS alone."""
    async with opened_store("jetstream", bus, None) as store:
        yield store


async def primary(box: Box, bus: Bus) -> Project:
    locks = await open_bucket(bus, buckets.PUSH_LEASES, replicas=1, deadline=soon())
    return Project(bus, box.lane, Leading(), locks, Bounds(PushLeaseOptions(), timeout=30.0))


async def test_a_pull_of_a_primary_says_what_the_store_has_lost(make_box: MakeBox, bus: Bus) -> None:
    a, b = make_box("a"), make_box("b")
    project = await primary(a, bus)
    first = await project.pull(PullRequest(), ProgressTracker(), queue=None, deadline=soon())
    assert first.outcome is PullOutcome.UNCHANGED
    make_database(b.database)
    await b.push()
    await project.pull(PullRequest(), ProgressTracker(), queue=None, deadline=soon())
    add_observation(b.database, "lost by the store")
    await b.push()
    await lose_the_head(b)
    with pytest.raises(ObjectMissingError) as told:
        await project.pull(PullRequest(), ProgressTracker(), queue=None, deadline=soon())
    assert told.value.remedy == "on the primary run `membridge recover --from mirror`"
    request = RecoverRequest(source=RecoverySource.MIRROR)
    await recover.recover(b.lane, request, epoch=1, progress=ProgressTracker(), deadline=soon())
    await project.pull(PullRequest(), ProgressTracker(), queue=None, deadline=soon())
    assert memory_rows(a.database) == memory_rows(b.database)


async def test_a_database_that_went_back_is_not_called_healed_when_the_store_lost_its_rows(make_box: MakeBox) -> None:
    box = make_box("a")
    make_database(box.database)
    older = box.database.read_bytes()
    add_observation(box.database, "lost by the store")
    await box.push()
    await rollback_guard.note(box.lane, deadline=soon())
    await lose_the_head(box)
    for file in box.database.parent.glob("claude-mem.db*"):
        file.unlink()
    box.database.write_bytes(older)
    with pytest.raises(ObjectMissingError, match="does not exist"):
        await rollback_guard.heal(box.lane, progress=ProgressTracker(), deadline=soon())


async def test_a_disk_that_is_full_when_the_ids_are_noted_hides_no_commit(
    make_box: MakeBox, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = make_box("a"), make_box("b")
    make_database(a.database)
    project = await primary(a, bus)
    save = files.save

    def full(path: Path, body: bytes) -> None:
        if path != a.lane.marks:
            return save(path, body)
        raise DiskFullError(f"no space left while writing {path}: {len(body)} bytes")

    with monkeypatch.context() as patched:
        patched.setattr("membridge.snapshot.rollback_guard.files.save", full)
        with pytest.raises(DiskFullError) as told:
            await rollback_guard.note(a.lane, deadline=soon())
        assert told.value.remedy == "free some space and try again"
        reply = await project.push(PushRequest(), ProgressTracker(), deadline=soon())
    assert (reply.outcome, reply.seq) == (PushOutcome.COMMITTED, 1)
    await b.pull()
    assert memory_rows(a.database) == memory_rows(b.database)


async def test_a_restore_that_another_push_keeps_out_writes_nothing(make_box: MakeBox, bus: Bus) -> None:
    a, b = make_box("a"), make_box("b")
    project, other = await primary(a, bus), await primary(b, bus)
    make_database(a.database)
    await project.push(PushRequest(), ProgressTracker(), deadline=soon())
    first = await heads.fetch_record(a.lane, 1, deadline=soon())
    add_observation(a.database, "since")
    await project.push(PushRequest(), ProgressTracker(), deadline=soon())
    async with other.keeping(soon()):
        with pytest.raises(LeaseHeldError):
            await project.restore(first, ProgressTracker(), deadline=Deadline.after(3.0))
    assert "since" in titles(a.database)
    await project.restore(first, ProgressTracker(), deadline=soon())
    assert "since" not in titles(a.database)


async def lose_the_head(box: Box) -> None:
    """Take the newest snapshot's object from the store."""
    known = await heads.read(box.lane, deadline=soon())
    assert known is not None
    assert known.record.object is not None
    await box.lane.store.delete(known.record.object.key, deadline=soon())
