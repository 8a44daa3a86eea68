"""When a node may lead, must stop, or has to wait.

Pure: takes instants of a clock that runs through suspend and frozen records, returns the next step. Wall clocks are
never compared; who holds a lease counts from the moment it *sent* its last successful renewal, who waits for one from
the moment it last *saw* a change.
"""

from dataclasses import dataclass
from enum import Enum

from membridge.errors import SettingsError
from schemas.leadership import Policy


@dataclass(frozen=True, slots=True)
class Terms:
    """A lease's times in seconds: its TTL, how often it is renewed, how long one request may take."""

    ttl: float
    renew_every: float
    request_timeout: float
    grace: float = 10.0

    @classmethod
    def of(cls, ttl: float, grace: float = 10.0) -> "Terms":
        """Return the terms of a lease of `ttl` seconds: renewed every third, requests of a sixth at most."""
        terms = cls(ttl, ttl / 3, ttl / 6, grace)
        check_terms(terms)
        return terms

    @property
    def acts_for(self) -> float:
        """Seconds after sending a renewal for which its sender may act."""
        return self.ttl * 2 / 3


@dataclass(frozen=True, slots=True)
class Standing:
    """How a node's mirror compares with the head; all zero for a project without snapshots."""

    mirror_seq: int
    mirror_rows: int
    head_seq: int
    head_rows: int
    head_epoch: int


@dataclass(frozen=True, slots=True)
class Held:
    """A lease of ours: its epoch, and when the last successful renewal was sent."""

    epoch: int
    sent_at: float


@dataclass(frozen=True, slots=True)
class Seen:
    """The lease entry of another: when we last saw it change, None for no entry; `gone_at` is when it went."""

    changed_at: float | None
    gone_at: float


class Step(Enum):
    """What to do now."""

    KEEP = "keep"
    RENEW = "renew"
    HAND_OVER = "hand over"
    STOP = "stop"
    WAIT = "wait"
    ACQUIRE = "acquire"


def check_terms(terms: Terms) -> None:
    """Raise SettingsError for terms under which a holder could outlive its lease."""
    if terms.ttl < 3 or terms.renew_every + 2 * terms.request_timeout > terms.acts_for + 1e-9:
        raise SettingsError(
            f"a lease of {terms.ttl:g} s renewed every {terms.renew_every:g} s is not safe",
            remedy="LEADERSHIP_LEASE_SECONDS must be at least 3",
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


def step_of_holder(now: float, held: Held, terms: Terms, *, wanted: bool) -> Step:
    """Return what the holder does; `wanted` is False when the project prefers another that is there."""
    if not may_act(now, held, terms):
        return Step.STOP
    if not wanted:
        return Step.HAND_OVER
    return Step.RENEW if now >= held.sent_at + terms.renew_every else Step.KEEP


def step_of_contender(now: float, seen: Seen, terms: Terms, *, preferred: bool, policy: Policy) -> Step:
    """Return what a node without the lease does: acquire, or wait `wait_of_contender` seconds."""
    return Step.ACQUIRE if wait_of_contender(now, seen, terms, preferred=preferred, policy=policy) == 0.0 else Step.WAIT


def wait_of_contender(now: float, seen: Seen, terms: Terms, *, preferred: bool, policy: Policy) -> float | None:
    """Return the seconds until a contender may acquire, 0 for now, None while it may not at all."""
    if not preferred and policy is Policy.MANUAL:
        return None
    free_at = seen.gone_at if seen.changed_at is None else seen.changed_at + terms.ttl
    if not preferred:
        free_at += terms.grace
    return max(0.0, free_at - now)
