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
class Terms:
    """A lease's times in seconds: its TTL, how often it is renewed, how long one request may take.

    `grace` is how much longer than the preferred node any other waits before it takes over.
    """

    ttl: float
    renew_every: float
    request_timeout: float
    grace: float = 10.0

    @classmethod
    def of(cls, ttl: float, grace: float = 10.0) -> "Terms":
        """Return the terms of a lease of `ttl` seconds: renewed every third, requests of a sixth at most."""
        terms = cls(ttl, ttl / 3, ttl / 6, grace)
        validate_terms(terms)
        return terms

    @property
    def acts_for(self) -> float:
        """Seconds after sending a renewal for which its sender may act."""
        return self.ttl * 2 / 3


@dataclass(frozen=True, slots=True)
class Standing:
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
class Ahead:
    """Who goes before a contender: how many live nodes, and whether the preferred one is there and led not last."""

    nodes: int = 0
    preferred: bool = False


NOBODY = Ahead()


@dataclass(frozen=True, slots=True)
class Held:
    """A lease of ours: its epoch, and when the last successful renewal was sent."""

    epoch: int
    sent_at: float


class Lease(Enum):
    """What a node without leadership sees of the lease.

    OURS was written by this process, which no longer acts on it: nobody else can hold it. HELD is another's. VANISHED
    was another's and went without being released: expired, or lost with the store, and its holder may not know.
    """

    FREE = "free"
    OURS = "ours"
    HELD = "held"
    VANISHED = "vanished"


@dataclass(frozen=True, slots=True)
class Seen:
    """The lease as it was last seen, and since when it looks so; for one that vanished, its last change before."""

    lease: Lease
    at: float


class Step(Enum):
    """What a holder does now."""

    KEEP = "keep"
    RENEW = "renew"
    HAND_OVER = "hand over"
    STOP = "stop"


def validate_terms(terms: Terms) -> None:
    """Raise SettingsError for terms under which a holder could outlive its lease."""
    late = terms.renew_every + 2 * terms.request_timeout > terms.acts_for + _ROUNDING
    if not (terms.ttl >= LEAST_TTL and terms.grace >= 0.0) or late:
        raise SettingsError(
            f"a lease of {terms.ttl:g} s that is renewed every {terms.renew_every:g} s with requests of "
            f"{terms.request_timeout:g} s and a grace of {terms.grace:g} s is not safe",
            remedy="a third of the lease and two requests must fit into two thirds of it; 30 s is the default",
            field="LEADERSHIP_LEASE_SECONDS",
        )


def may_act(now: float, held: Held | None, terms: Terms) -> bool:
    """Return whether the holder may still act."""
    return held is not None and now < held.sent_at + terms.acts_for


def is_candidate(standing: Standing) -> bool:
    """Return whether a node may lead: a mirror that is missing, behind or smaller than the head's may not."""
    return standing.head_seq == 0 or (
        standing.mirror_seq >= standing.head_seq and standing.mirror_rows >= standing.head_rows
    )


def next_epoch(*known: int) -> int:
    """Return an epoch above every one known."""
    return max(known, default=0) + 1


def sight(now: float, before: Seen | None, entry: Lease | None, *, released: bool) -> Seen:
    """Return what is seen after a look: `entry` is HELD, OURS or None, `released` that its holder gave it back."""
    if entry is not None:
        return Seen(entry, now)
    if released or before is None:
        return Seen(Lease.FREE, now)
    if before.lease is Lease.HELD:
        return Seen(Lease.VANISHED, before.at)
    return before


def after_loss(now: float, seen: Seen, *, has_counter: bool, known: int) -> Seen:
    """Return what `seen` is worth, given whether epochs are counted and the highest one known from elsewhere.

    A project that had epochs and lost its counter had its store wiped: a holder that nobody here saw may still act.
    """
    if not has_counter and known > 0 and seen.lease in {Lease.FREE, Lease.OURS}:
        return Seen(Lease.VANISHED, now)
    return seen


def step_of_holder(now: float, held: Held, terms: Terms, *, wanted: bool) -> Step:
    """Return what the holder does; `wanted` is False when the project prefers another that is there."""
    if not may_act(now, held, terms):
        return Step.STOP
    if now >= held.sent_at + terms.renew_every:
        return Step.RENEW
    return Step.KEEP if wanted else Step.HAND_OVER


def wait_of_contender(
    now: float, seen: Seen, terms: Terms, *, preferred: bool, policy: Policy, ahead: Ahead = NOBODY
) -> float | None:
    """Return the seconds until a contender may acquire, 0 for now, None while it may not at all.

    Each node that is `ahead` gets the time of one request to be first.
    """
    if not preferred and policy is Policy.MANUAL:
        return None
    lasts = seen.lease in {Lease.HELD, Lease.VANISHED}
    free_at = seen.at + (terms.ttl if lasts else 0.0)
    if not preferred:
        # A lease that was given back is meant for the preferred node, which gets the time to write it: whoever is
        # faster becomes preferred, and a selection would be undone by a slow answer.
        free_at += (
            terms.grace if lasts else max(terms.grace, terms.ttl if ahead.preferred else 2 * terms.request_timeout)
        )
        free_at += ahead.nodes * terms.request_timeout
    return max(0.0, free_at - now)


def turn_of(node: NodeId, mirror_seq: int, rivals: Iterable[Rival]) -> int:
    """Return how many of `rivals` take over before `node`: the fresher ones, and of equals those of a smaller id."""
    mine = (-mirror_seq, node)
    return sum((-rival.mirror_seq, rival.node) < mine for rival in rivals if rival.node != node)
