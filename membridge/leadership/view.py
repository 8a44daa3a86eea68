"""An elector's options and view: plain values that other packages hold without knowing how it works."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from membridge.system.boottime import boottime
from schemas.identity import NodeId, ProjectId
from schemas.leadership import LeaderRecord, Policy, Role


@dataclass(frozen=True, slots=True)
class ElectorOptions:
    """Settings of one project's leadership."""

    lease_seconds: float = 30.0
    policy: Policy = Policy.MANUAL
    preferred: NodeId | None = None
    grace_seconds: float = 10.0
    replicas: int = 1
    is_present: Callable[[NodeId], Awaitable[bool]] | None = None
    now: Callable[[], float] = boottime


@dataclass(frozen=True, slots=True)
class Election:
    """The project, and this node as its candidate."""

    project: ProjectId
    name: str
    node: NodeId


@dataclass(frozen=True, slots=True)
class LeadershipView:
    """Leadership as this node knows it now."""

    role: Role
    epoch: int
    leader: NodeId | None
    preferred: NodeId | None
    policy: Policy
    record: LeaderRecord | None

    def is_like(self, other: "LeadershipView") -> bool:
        """Whether only the lease's times differ."""
        return _without_times(self) == _without_times(other)


def _without_times(view: LeadershipView) -> tuple[object, ...]:
    return (view.role, view.epoch, view.leader, view.preferred, view.policy)
