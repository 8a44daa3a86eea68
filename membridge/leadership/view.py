"""What a keeper is told and what it shows: plain values that other packages hold without knowing how it works."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from schemas.identity import NodeId, ProjectId
from schemas.leadership import LeaderRecord, Policy, Role


def boottime() -> float:
    """Return the seconds of a clock that runs through suspend."""
    clock = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return time.clock_gettime(clock)


@dataclass(frozen=True, slots=True)
class KeeperOptions:
    """Settings of one project's leadership."""

    lease_seconds: float = 30.0
    policy: Policy = Policy.MANUAL
    preferred: NodeId | None = None
    grace_seconds: float = 10.0
    replicas: int = 1
    is_present: Callable[[NodeId], Awaitable[bool]] | None = None
    now: Callable[[], float] = boottime


@dataclass(frozen=True, slots=True)
class Contest:
    """What is led, and the node that would."""

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
        return _told(self) == _told(other)


def _told(view: LeadershipView) -> tuple[object, ...]:
    return (view.role, view.epoch, view.leader, view.preferred, view.policy)
