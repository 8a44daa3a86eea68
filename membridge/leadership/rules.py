"""When a node may lead, must stop, or has to wait.

Pure: takes frozen records and instants of a clock that runs through suspend, returns the next step. Wall clocks are
never compared. A holder counts from the moment it *sent* its last successful renewal, a candidate from the moment it
last *saw* a change.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from membridge.errors import SettingsError
from schemas.identity import NodeId
from schemas.leadership import Policy

#: The shortest TTL that NATS keeps for an entry, in seconds.
LEAST_TTL = 1.0
#: Rounding error of sums of floating point numbers.
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Timing:
    """A lease's times in seconds: its TTL, how often it is renewed, how long one request may take.

    Any other node waits `grace` longer than the preferred one before it takes over.
    """

    ttl: float
    renew_every: float
    request_timeout: float
    grace: float = 10.0

    @classmethod
    def of(cls, ttl: float, grace: float = 10.0) -> "Timing":
        """Return the timing of a lease of `ttl` seconds: renewed every third of it, requests a sixth at most."""
        timing = cls(ttl, ttl / 3, ttl / 6, grace)
        validate_timing(timing)
        return timing

    @property
    def acts_for(self) -> float:
        """How many seconds after sending a renewal its sender may act."""
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
    """Another present node, and how fresh its mirror is."""

    node: NodeId
    mirror_seq: int


@dataclass(frozen=True, slots=True)
class Precedence:
    """What goes before a candidate: how many live nodes, and a preferred one that is present and did not lead last."""

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

    OURS was written by this process, which no longer acts on it: no other node can hold it. HELD is another node's.
    VANISHED was another node's and ended without a release: it expired, or was lost with the store, and its holder may
    not know.
    """

    FREE = "free"
    OURS = "ours"
    HELD = "held"
    VANISHED = "vanished"


@dataclass(frozen=True, slots=True)
class Observation:
    """The lease as last seen, and since when; for one that vanished, the time of its last change before."""

    lease: LeaseState
    at: float


class Step(Enum):
    """What a holder does next."""

    KEEP = "keep"
    RENEW = "renew"
    HAND_OVER = "hand over"
    STOP = "stop"


def validate_timing(timing: Timing) -> None:
    """Raise SettingsError for timing under which a holder could outlive its lease."""
    late = timing.renew_every + 2 * timing.request_timeout > timing.acts_for + _ROUNDING
    if not (timing.ttl >= LEAST_TTL and timing.grace >= 0.0) or late:
        raise SettingsError(
            f"a lease of {timing.ttl:g} s, renewed every {timing.renew_every:g} s with requests of "
            f"{timing.request_timeout:g} s and a grace of {timing.grace:g} s, could end before its holder notices",
            remedy="raise LEADERSHIP_LEASE_SECONDS; 30 is the default",
            field="LEADERSHIP_LEASE_SECONDS",
        )


def may_act(now: float, held: HeldEpoch | None, timing: Timing) -> bool:
    """Return whether the holder may still act."""
    return held is not None and now < held.sent_at + timing.acts_for


def is_eligible(freshness: Freshness) -> bool:
    """Return whether a node may lead: not if its mirror is missing, behind or smaller than the head."""
    return freshness.head_seq == 0 or (
        freshness.mirror_seq >= freshness.head_seq and freshness.mirror_rows >= freshness.head_rows
    )


def next_epoch(*known: int) -> int:
    """Return an epoch above all that are known."""
    return max(known, default=0) + 1


def observe(now: float, before: Observation | None, entry: LeaseState | None, *, released: bool) -> Observation:
    """Return the new observation: `entry` is HELD, OURS or None; `released` means that its holder gave it back."""
    if entry is not None:
        return Observation(entry, now)
    if released or before is None:
        return Observation(LeaseState.FREE, now)
    if before.lease is LeaseState.HELD:
        return Observation(LeaseState.VANISHED, before.at)
    return before


def after_loss(now: float, seen: Observation, *, has_counter: bool, known: int) -> Observation:
    """Correct `seen`, given whether there is a counter and the highest epoch known from elsewhere.

    If a project had epochs and its counter is gone, its store was wiped: a holder that this node never saw may still
    act.
    """
    if not has_counter and known > 0 and seen.lease in {LeaseState.FREE, LeaseState.OURS}:
        return Observation(LeaseState.VANISHED, now)
    return seen


def step_of_holder(now: float, held: HeldEpoch, timing: Timing, *, wanted: bool) -> Step:
    """Return what the holder does; `wanted` is False when the project prefers another present node."""
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
    """Return the seconds until a candidate may acquire: 0 for now, None while it may not.

    Each node with precedence gets the time of one request to be first.
    """
    if not preferred and policy is Policy.MANUAL:
        return None
    lasts = seen.lease in {LeaseState.HELD, LeaseState.VANISHED}
    free_at = seen.at + (timing.ttl if lasts else 0.0)
    if not preferred:
        # A released lease is meant for the preferred node, which gets the time to write it: a faster node would become
        # preferred, so a slow answer would undo a selection.
        free_at += (
            timing.grace
            if lasts
            else max(timing.grace, timing.ttl if precedence.preferred else 2 * timing.request_timeout)
        )
        free_at += precedence.nodes * timing.request_timeout
    return max(0.0, free_at - now)


def turn_of(node: NodeId, mirror_seq: int, rivals: Iterable[Rival]) -> int:
    """Return how many `rivals` take over before `node`: the fresher ones, and of equals those with a smaller id."""
    mine = (-mirror_seq, node)
    return sum((-rival.mirror_seq, rival.node) < mine for rival in rivals if rival.node != node)
