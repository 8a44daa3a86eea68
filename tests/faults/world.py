"""A small world for a sweep: two nodes with one memory on a real server and store, as daemons compose it.

The same composition serves the process that is killed and the one that looks at what it left. Every try gets a project
of its own: the template's homes are copied, its objects and head are stored again under the new id.
"""

from collections.abc import AsyncGenerator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from membridge.aio.deadline import Deadline
from membridge.bus.connection import Bus, connect
from membridge.bus.kv import Kv, open_bucket
from membridge.bus.options import BusOptions
from membridge.bus.publisher import announce
from membridge.bus.streams import WorkQueue, ensure_streams, open_queue
from membridge.commits import temp_dir
from membridge.commits.chain import ChainPolicy
from membridge.commits.progress import ProgressTracker
from membridge.commits.retention import SnapshotPolicy
from membridge.leadership.view import LeadershipView
from membridge.merge.conflicts import Journal
from membridge.merge.row_index import RowIndex
from membridge.node.project import Bounds, Project
from membridge.node.roles import NoRoles, Roles
from membridge.objectstore.protocol import ObjectStore
from membridge.objectstore.s3.client import S3Options
from membridge.snapshot.backup_retention import BackupPolicy
from membridge.snapshot.lane import Lane, LanePolicy
from membridge.snapshot.push_lease import PushLeaseOptions
from schemas import buckets, streams, subjects
from schemas.buckets import PushLeaseRecord
from schemas.identity import NodeId, ProjectId
from schemas.leadership import Policy, Role
from schemas.snapshot import Head, PullReply, PullRequest, PushReply, PushRequest
from tests.fixtures.lanes import opened_store


def soon() -> Deadline:
    """Return a deadline that nothing here needs."""
    return Deadline.after(30.0)


class Secondary:
    """The role of a node that another one leads."""

    enabled = True

    def view(self) -> LeadershipView:
        """Return a secondary."""
        leader = NodeId("the other")
        return LeadershipView(Role.SECONDARY, 1, leader=leader, preferred=None, policy=Policy.MANUAL, record=None)

    def epoch_for_commit(self) -> int:
        """Never asked."""
        raise AssertionError("a secondary commits nothing")

    async def changed(self, since: LeadershipView) -> LeadershipView:
        """Never asked."""
        return since


@dataclass(frozen=True, slots=True)
class Place:
    """Where servers are; `s3` is None for the store in NATS."""

    nats_url: str
    s3: S3Options | None = None


@dataclass(frozen=True, slots=True)
class Terms:
    """How the nodes of a scenario are set up."""

    max_deltas: int = 50
    max_backups: int = 50
    legacy: bool = False
    #: Snapshots that retention keeps.
    keep_last: int = 30
    #: The node that follows the other one; without one roles are off.
    secondary: str | None = None


PLAIN = Terms()


@dataclass(slots=True)
class Node:
    """A node: its lane and what a daemon does with it."""

    project: Project
    queue: WorkQueue | None = None

    @property
    def lane(self) -> Lane:
        """Its lane."""
        return self.project.lane

    @property
    def database(self) -> Path:
        """Its live database."""
        return self.lane.database

    async def push(self) -> PushReply:
        """Push, as the role says."""
        return await self.project.push(PushRequest(), ProgressTracker(), deadline=soon())

    async def pull(self, *, replace: bool = False) -> PullReply:
        """Pull."""
        return await self.project.pull(PullRequest(replace=replace), ProgressTracker(), queue=None, deadline=soon())

    async def take_in(self) -> PullReply:
        """Take in what is announced."""
        assert self.queue is not None
        deliveries = await self.queue.fetch(wait=0.3)
        return await self.project.take_in(deliveries, ProgressTracker(), deadline=soon())


@dataclass(slots=True)
class World:
    """One connection to the servers."""

    place: Place
    bus: Bus
    store: ObjectStore
    heads: Kv[Head]
    locks: Kv[PushLeaseRecord]
    _stack: ExitStack = field(default_factory=ExitStack)

    def node(self, folder: Path, project: ProjectId, name: str, terms: Terms) -> Node:
        """Return the node `name` whose home lies in `folder`."""
        home = folder / name
        temp_dir.sweep(home / "state")
        journal = Journal(home / "state" / "journal.db")
        self._stack.callback(journal.close)
        index = RowIndex(home / "state" / "rows.db", home / "claude-mem.db")
        self._stack.callback(index.close)

        lane = Lane(
            project=project,
            name="swept",
            node=NodeId(name),
            database=home / "claude-mem.db",
            folder=home / "state",
            store=self.store,
            heads=self.heads,
            journal=journal,
            index=index,
            announce=partial(announce, self.bus),
            chain=ChainPolicy(max_deltas=terms.max_deltas, max_percent=1e6),
            retention=SnapshotPolicy(last=terms.keep_last, hourly=0, daily=0, weekly=0)
            if terms.keep_last < PLAIN.keep_last
            else SnapshotPolicy(),
            policy=LanePolicy(publish_legacy=terms.legacy, backups=BackupPolicy(max_count=terms.max_backups)),
        )
        roles: Roles = Secondary() if terms.secondary == name else NoRoles()
        return Node(Project(self.bus, lane, roles, self.locks, Bounds(push_lease=PushLeaseOptions(), timeout=30.0)))

    async def queue(self, project: ProjectId) -> WorkQueue:
        """Open the project's proposals; what was delivered to somebody who is gone comes at once."""
        durable = f"swept-{project}"
        await self.bus.request(f"$JS.API.CONSUMER.DELETE.{streams.PROPOSALS.name}.{durable}", b"", deadline=soon())
        subject = subjects.PROPOSAL.format(project=project, node="*")
        return await open_queue(self.bus, streams.PROPOSALS, durable, subject, deadline=soon())

    def close_journals(self) -> None:
        """Close what nodes had open."""
        self._stack.pop_all().close()


@asynccontextmanager
async def opened(place: Place) -> AsyncGenerator[World]:
    """Connect to the servers."""
    async with connect(BusOptions(urls=(place.nats_url,), name="swept"), deadline=Deadline.after(5.0)) as bus:
        await ensure_streams(bus, replicas=1, deadline=soon())
        heads_bucket = await open_bucket(bus, buckets.HEADS, replicas=1, deadline=soon())
        locks = await open_bucket(bus, buckets.PUSH_LEASES, replicas=1, deadline=soon())
        async with opened_store("s3" if place.s3 else "jetstream", bus, place.s3) as store:
            world = World(place, bus, store, heads_bucket, locks)
            try:
                yield world
            finally:
                world.close_journals()
