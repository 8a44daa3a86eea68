"""When a node may lead, must stop, or has to wait.

Pure: takes instants of a clock that runs through suspend and frozen records, returns the next step. Wall clocks are
never compared; who holds a lease counts from the moment it *sent* its last successful renewal, who waits for one from
the moment it last *saw* a change.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from membridge.errors import SettingsError
from schemas.identity import NodeId
from schemas.leadership import Policy

#: The shortest TTL that NATS keeps for an entry, in seconds.
LEAST_TTL = 1.0
#: What sums of floating point numbers may be off by.
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Timing:
    """A lease's times in seconds: its TTL, how often it is renewed, how long one request may take.

    `grace` is how much longer than the preferred node any other waits before it takes over.
    """

    ttl: float
    renew_every: float
    request_timeout: float
    grace: float = 10.0

    @classmethod
    def of(cls, ttl: float, grace: float = 10.0) -> "Timing":
        """Return the timing of a lease of `ttl` seconds: renewed every third, requests of a sixth at most."""
        timing = cls(ttl, ttl / 3, ttl / 6, grace)
        validate_timing(timing)
        return timing

    @property
    def acts_for(self) -> float:
        """Seconds after sending a renewal for which its sender may act."""
        return self.ttl * 2 / 3


@dataclass(frozen=True, slots=True)
class Freshness:
    """How a node's mirror compares with the head; all zero for a project without snapshots.

    `head_epoch` is the highest epoch of any commit that the node knows.
    """

    mirror_seq: int
    mirror_rows: int
    head_seq: int
    head_rows: int
    head_epoch: int


@dataclass(frozen=True, slots=True)
class Rival:
    """Another node that is present, and how fresh its mirror is."""

    node: NodeId
    mirror_seq: int


@dataclass(frozen=True, slots=True)
class Precedence:
    """Who goes before a candidate: how many live nodes, and whether the preferred one is there and led not last."""

    nodes: int = 0
    preferred: bool = False


NO_PRECEDENCE = Precedence()


@dataclass(frozen=True, slots=True)
class HeldEpoch:
    """A lease of ours: its epoch, and when the last successful renewal was sent."""

    epoch: int
    sent_at: float


class LeaseState(Enum):
    """What a node without leadership sees of the lease.

    OURS was written by this process, which no longer acts on it: nobody else can hold it. HELD is another's. VANISHED
    was another's and went without being released: expired, or lost with the store, and its holder may not know.
    """

    FREE = "free"
    OURS = "ours"
    HELD = "held"
    VANISHED = "vanished"


@dataclass(frozen=True, slots=True)
class Observation:
    """The lease as it was last seen, and since when it looks so; for one that vanished, its last change before."""

    lease: LeaseState
    at: float


class Step(Enum):
    """What a holder does now."""

    KEEP = "keep"
    RENEW = "renew"
    HAND_OVER = "hand over"
    STOP = "stop"


def validate_timing(timing: Timing) -> None:
    """Raise SettingsError for timing under which a holder could outlive its lease."""
    late = timing.renew_every + 2 * timing.request_timeout > timing.acts_for + _ROUNDING
    if not (timing.ttl >= LEAST_TTL and timing.grace >= 0.0) or late:
        raise SettingsError(
            f"a lease of {timing.ttl:g} s that is renewed every {timing.renew_every:g} s with requests of "
            f"{timing.request_timeout:g} s and a grace of {timing.grace:g} s is not safe",
            remedy="a third of the lease and two requests must fit into two thirds of it; 30 s is the default",
            field="LEADERSHIP_LEASE_SECONDS",
        )


def may_act(now: float, held: HeldEpoch | None, timing: Timing) -> bool:
    """Return whether the holder may still act."""
    return held is not None and now < held.sent_at + timing.acts_for


def is_eligible(freshness: Freshness) -> bool:
    """Return whether a node may lead: a mirror that is missing, behind or smaller than the head's may not."""
    return freshness.head_seq == 0 or (
        freshness.mirror_seq >= freshness.head_seq and freshness.mirror_rows >= freshness.head_rows
    )


def next_epoch(*known: int) -> int:
    """Return an epoch above every one known."""
    return max(known, default=0) + 1


def observe(now: float, before: Observation | None, entry: LeaseState | None, *, released: bool) -> Observation:
    """Return what is seen after a look: `entry` is HELD, OURS or None, `released` that its holder gave it back."""
    if entry is not None:
        return Observation(entry, now)
    if released or before is None:
        return Observation(LeaseState.FREE, now)
    if before.lease is LeaseState.HELD:
        return Observation(LeaseState.VANISHED, before.at)
    return before


def after_loss(now: float, seen: Observation, *, has_counter: bool, known: int) -> Observation:
    """Return what `seen` is worth, given whether epochs are counted and the highest one known from elsewhere.

    A project that had epochs and lost its counter had its store wiped: a holder that nobody here saw may still act.
    """
    if not has_counter and known > 0 and seen.lease in {LeaseState.FREE, LeaseState.OURS}:
        return Observation(LeaseState.VANISHED, now)
    return seen


def step_of_holder(now: float, held: HeldEpoch, timing: Timing, *, wanted: bool) -> Step:
    """Return what the holder does; `wanted` is False when the project prefers another that is there."""
    if not may_act(now, held, timing):
        return Step.STOP
    if now >= held.sent_at + timing.renew_every:
        return Step.RENEW
    return Step.KEEP if wanted else Step.HAND_OVER


def wait_of_candidate(
    now: float,
    seen: Observation,
    timing: Timing,
    *,
    preferred: bool,
    policy: Policy,
    precedence: Precedence = NO_PRECEDENCE,
) -> float | None:
    """Return the seconds until a candidate may acquire, 0 for now, None while it may not at all.

    Each node with precedence gets the time of one request to be first.
    """
    if not preferred and policy is Policy.MANUAL:
        return None
    lasts = seen.lease in {LeaseState.HELD, LeaseState.VANISHED}
    free_at = seen.at + (timing.ttl if lasts else 0.0)
    if not preferred:
        # A lease that was given back is meant for the preferred node, which gets the time to write it: whoever is
        # faster becomes preferred, and a selection would be undone by a slow answer.
        free_at += (
            timing.grace
            if lasts
            else max(timing.grace, timing.ttl if precedence.preferred else 2 * timing.request_timeout)
        )
        free_at += precedence.nodes * timing.request_timeout
    return max(0.0, free_at - now)


def turn_of(node: NodeId, mirror_seq: int, rivals: Iterable[Rival]) -> int:
    """Return how many of `rivals` take over before `node`: the fresher ones, and of equals those of a smaller id."""
    mine = (-mirror_seq, node)
    return sum((-rival.mirror_seq, rival.node) < mine for rival in rivals if rival.node != node)
