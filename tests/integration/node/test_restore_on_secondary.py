"""A secondary's restore: the preview promises what carrying it out does, and refuses what carrying it out refuses."""

import shutil

import pytest

from membridge.bus.connection import Bus
from membridge.bus.kv import open_bucket
from membridge.claudemem.memory import memory_rows
from membridge.errors import LeaseLostError, RefusedError
from membridge.leadership.view import LeadershipView
from membridge.node.history_operations import HistoryOperations
from membridge.node.jobs import Jobs, RequestContext
from membridge.node.project import Bounds, Project
from membridge.snapshot.push_lease import PushLeaseOptions
from membridge.testing.writer import write
from schemas import buckets
from schemas.commits import RestoreRequest
from schemas.identity import NodeId
from schemas.leadership import Policy, Role
from tests.fixtures.lanes import MakeBox, soon
from tests.fixtures.machines import SAMPLE


class Following:
    """A secondary of another node."""

    enabled = True

    def view(self) -> LeadershipView:
        return LeadershipView(Role.SECONDARY, 1, NodeId("b"), NodeId("b"), Policy.MANUAL, None)

    def epoch_for_commit(self) -> int:
        raise LeaseLostError("this node is not primary")

    async def changed(self, since: LeadershipView) -> LeadershipView:
        return since

    async def give_way(self, node: NodeId, *, deadline: object) -> None:
        del node, deadline


@pytest.mark.parametrize("lane_store", ["jetstream"], indirect=True)
async def test_a_preview_on_a_secondary_says_what_the_restore_does_there(make_box: MakeBox, bus: Bus) -> None:
    box = make_box("a")
    shutil.copyfile(SAMPLE, box.database)
    await box.push()
    write(str(box.database), 2, "second")
    await box.push()
    write(str(box.database), 1, "in no snapshot")
    memory = memory_rows(box.database)
    locks = await open_bucket(bus, buckets.PUSH_LEASES, replicas=1, deadline=soon())
    project = Project(bus, box.lane, Following(), locks, Bounds(PushLeaseOptions(30.0, 3.0, force=False)))
    operations = HistoryOperations(project, Jobs(bus, box.lane.project, box.lane.node))

    for apply in (False, True):
        with pytest.raises(RefusedError, match="only the primary restores an earlier memory, and b is primary"):
            await operations.restore(RestoreRequest(state="1", apply=apply), RequestContext(by="a", deadline=soon()))
        reply = await operations.restore(
            RestoreRequest(state="head", apply=apply), RequestContext(by="a", deadline=soon())
        )
        assert (reply.applied, reply.commits, reply.seq) == (apply, False, 2)
        assert reply.unsynced >= 1
        assert memory_rows(box.database) == memory
