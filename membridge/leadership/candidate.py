"""Waits for the lease of one project and takes it when the rules allow.

It acts on exactly the state of the lease that it saw: if anything changes between a decision and its write, the write
fails or is not made, and the candidate decides anew.
"""

from collections.abc import Awaitable, Callable

from membridge.aio.deadline import Deadline
from membridge.bus.kv import Entry, Kv
from membridge.bus.watch import LOOK, Change
from membridge.errors import MembridgeError
from membridge.leadership import rules
from membridge.leadership.lease import HeldLease, LeaseEntry, new_record
from membridge.leadership.preference import Preference
from membridge.leadership.rules import NO_PRECEDENCE, Freshness, LeaseState, Observation, Precedence, Rival, Timing
from membridge.leadership.view import Election
from schemas.leadership import LeaderRecord
from schemas.node import NodePresence

#: Seconds between two checks of what no event announces, such as a mirror that caught up.
GLANCE = 1.0
#: Seconds until the next try when a read shows a change that the watch has not reported yet.
BEHIND = 0.05
#: Seconds that comparing the mirror with the head may take.
COMPARE = 30.0


class Candidate:
    """One node that waits for one project's lease."""

    def __init__(
        self,
        election: Election,
        timing: Timing,
        lease: LeaseEntry,
        *,
        preference: Preference,
        nodes: Kv[NodePresence],
        freshness: Callable[[], Awaitable[Freshness]],
    ) -> None:
        self._election, self._timing, self._lease, self._preference = election, timing, lease, preference
        self._nodes, self._freshness = nodes, freshness
        #: The lease entry as last seen; `seen`, what it means, is None before the first look.
        self.entry: Entry[LeaderRecord] | None = None
        self.seen: Observation | None = None
        #: The highest epoch that this node ever saw; it survives a wiped store.
        self._highest = 0
        #: Whether this node resigned: then it does not take the lease back.
        self.resigned = False
        self._aside_until = 0.0
        self._led_last = None

    @property
    def is_preferred(self) -> bool:
        """Whether the project prefers this node."""
        return self._preference.known.preferred == self._election.node

    def look(self, change: Change[LeaderRecord]) -> bool:
        """Note the lease's state; return whether another node holds it."""
        self.entry, kind = change.entry, None
        if change.entry is not None:
            record = change.entry.value
            kind = LeaseState.OURS if record.term and record.term == self._lease.lease_id else LeaseState.HELD
            self._highest = max(self._highest, record.epoch)
            self._led_last = record.primary_node_id
            # A node that resigned waits until another one leads.
            self.resigned = self.resigned and record.primary_node_id == self._election.node
        self.seen = rules.observe(self._lease.now(), self.seen, kind, released=change.released)
        return kind is LeaseState.HELD

    def gave_back(self) -> None:
        """Count the lease as free after its release, whatever an earlier read shows later.

        If another node's lease was seen meanwhile, there was nothing left to release, and that one is not free.
        """
        if self.seen is None or self.seen.lease is not LeaseState.HELD:
            self.seen = Observation(LeaseState.FREE, self._lease.now())

    def stand_aside(self) -> None:
        """Leave the lease to the selected node: for one TTL this node does not take it, unless it is preferred.

        Otherwise a slow successor would find its predecessor back as primary, and itself no longer preferred.
        """
        self._aside_until = self._lease.now() + self._timing.ttl

    async def attempt(self) -> HeldLease | float:
        """Acquire the lease if it is time; otherwise return the seconds until the next look.

        Raises RevisionMovedError when another node was faster.
        """
        seen, entry = self.seen, self.entry
        if seen is None or self.resigned:
            return LOOK
        aside = self._aside_until - self._lease.now()
        if aside > 0 and not self.is_preferred:
            return min(GLANCE, aside)
        wait = self._wait(seen)
        if wait is None or wait > 0.0:
            return LOOK if wait is None else wait
        async with Deadline.after(COMPARE).scope("comparing the mirror with the head"):
            freshness = await self._freshness()
        if not rules.is_eligible(freshness):
            return min(GLANCE, self._timing.renew_every)
        if not self.is_preferred:
            rivals = await self._rivals()
            precedence = Precedence(
                rules.turn_of(self._election.node, freshness.mirror_seq, rivals),
                self._preference.known.preferred in {rival.node for rival in rivals},
            )
            if wait := self._wait(seen, precedence):
                return min(wait, GLANCE)
        return await self._acquire(seen, entry, freshness)

    async def _acquire(
        self, seen: Observation, entry: Entry[LeaderRecord] | None, freshness: Freshness
    ) -> HeldLease | float:
        deadline = Deadline.after(3 * self._timing.request_timeout)
        known = max(self._highest, freshness.head_epoch)
        if (fresh := await self._lease.read(deadline=deadline)) != entry:
            # Do not spend an epoch on an outdated state. The watch reports an entry that appeared; but it reports none
            # that came and went between two of its reads.
            if fresh is None and self.seen is seen:
                self.look(Change(None, initial=False, released=False))
                return 0.0
            return BEHIND
        counter = await self._lease.counter(deadline=deadline)
        worth = rules.after_loss(self._lease.now(), seen, has_counter=counter is not None, known=known)
        if worth is not seen:
            self.seen = worth
            return 0.0
        epoch = await self._lease.claim(counter, known, deadline=deadline)
        self._highest = max(self._highest, epoch)
        if self.seen is not seen or self.resigned or self._wait(seen) != 0.0:
            # Something changed since the decision; the claimed epoch stays unused.
            return 0.0
        preference = self._preference.known
        # A selected node leads by that order; one that takes over under `auto` leads by its own.
        issued_by = preference.updated_by if self.is_preferred else self._election.node
        record = new_record(self._election.node, epoch, self._timing.ttl, policy=preference.policy, issued_by=issued_by)
        return await self._lease.acquire(record, entry, deadline=deadline)

    async def _rivals(self) -> list[Rival]:
        """Return the project's live nodes, without the last primary."""
        try:
            nodes = await self._nodes.entries(deadline=Deadline.after(self._timing.request_timeout))
        except MembridgeError:
            return []
        return [
            Rival(entry.value.node, project.mirror_seq)
            for entry in nodes.values()
            for project in entry.value.projects
            if project.project == self._election.project and entry.value.node != self._led_last
        ]

    def _wait(self, seen: Observation, precedence: Precedence = NO_PRECEDENCE) -> float | None:
        return rules.wait_of_candidate(
            self._lease.now(),
            seen,
            self._timing,
            preferred=self.is_preferred,
            policy=self._preference.known.policy,
            precedence=precedence,
        )
