"""Who was primary when a push began and is not any more when it commits."""

import shutil

import pytest

from membridge.bus.connection import Bus
from membridge.bus.kv import open_bucket
from membridge.commits import heads
from membridge.commits.progress import ProgressTracker
from membridge.errors import LeaseLostError
from membridge.leadership.view import LeadershipView
from membridge.node.project import Bounds, Project
from membridge.snapshot.push_lease import PushLeaseOptions
from membridge.testing.writer import write
from schemas import buckets
from schemas.identity import NodeId
from schemas.leadership import Policy, Role
from schemas.snapshot import PushRequest
from tests.fixtures.lanes import MakeBox, soon
from tests.fixtures.machines import SAMPLE


class Fading:
    """Primary for one look, then a secondary of another node: a lease that ends between check and commit."""

    enabled = True

    def __init__(self) -> None:
        self.looks = 0

    def view(self) -> LeadershipView:
        role = Role.SECONDARY if self.looks else Role.PRIMARY
        self.looks += 1
        return LeadershipView(role, 3, NodeId("b"), NodeId("b"), Policy.MANUAL, None)

    def epoch_for_commit(self) -> int:
        raise LeaseLostError("this node is not primary now")

    async def changed(self, since: LeadershipView) -> LeadershipView:
        return since


@pytest.mark.parametrize("lane_store", ["jetstream"], indirect=True)
async def test_who_lost_the_lease_meanwhile_does_not_commit_under_its_successors_epoch(
    make_box: MakeBox, bus: Bus
) -> None:
    box = make_box("a")
    shutil.copyfile(SAMPLE, box.database)
    await box.push(epoch=3)
    write(str(box.database), 1, "one more")
    locks = await open_bucket(bus, buckets.PUSH_LEASES, replicas=1, deadline=soon())
    project = Project(bus, box.lane, Fading(), locks, Bounds(PushLeaseOptions(30.0, 3.0, force=False)))
    with pytest.raises(LeaseLostError):
        await project.push(PushRequest(), ProgressTracker(), deadline=soon())
    known = await heads.read(box.lane, deadline=soon())
    assert known is not None
    assert known.record.seq == 1
