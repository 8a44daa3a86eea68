"""Hold, follow or wait for the lease of one project.

One loop: look at what is known, take one step, wait for a change or the next instant. It decides by `rules`, writes by
compare-and-set, and never acts as primary longer than two thirds of a TTL after it sent its last renewal.
"""

import asyncio
from collections.abc import Awaitable, Callable

from membridge.aio.backoff import Backoff, jittered
from membridge.aio.deadline import Deadline, comes_within
from membridge.aio.lifecycle import Ready
from membridge.aio.tasks import first_failure
from membridge.bus.connection import Bus
from membridge.bus.errors import StreamMissingError
from membridge.bus.kv import Kv, open_bucket
from membridge.bus.publisher import Publisher
from membridge.bus.watch import watch
from membridge.errors import InvalidRequestError, LeaseLostError, MembridgeError, RevisionMovedError
from membridge.leadership import rules
from membridge.leadership.candidate import GLANCE, Candidate
from membridge.leadership.lease import HeldLease, LeaseEntry
from membridge.leadership.preference import Preference
from membridge.leadership.rules import Freshness, Step, Timing
from membridge.leadership.view import Election, ElectorOptions, LeadershipView
from membridge.system import clock
from membridge.system.logging import get_logger
from schemas import buckets
from schemas.events import LeadershipChanged
from schemas.identity import NodeId
from schemas.leadership import LeadershipReply, Policy, ProjectSettings, Role

log = get_logger("membridge.leadership")

#: Seconds that opening the buckets, a hand-over's flush and the release at a stop may take.
OPEN, FLUSH, RELEASE = 30.0, 30.0, 2.0


class Elector:
    """Leadership of one project on this node."""

    def __init__(
        self,
        bus: Bus,
        election: Election,
        *,
        options: ElectorOptions,
        freshness: Callable[[], Awaitable[Freshness]],
        flush: Callable[[Deadline], Awaitable[None]],
    ) -> None:
        self.node = election.node
        self._bus, self._election, self._options = bus, election, options
        self._flush, self._now = flush, options.now
        self._timing = Timing.of(options.lease_seconds, options.grace_seconds)
        leases = Kv(bus, buckets.LEADERSHIP)
        self._lease = LeaseEntry(leases, Kv(bus, buckets.EPOCHS), election.project, now=self._now)
        self._preference = Preference(
            Kv(bus, buckets.SETTINGS),
            ProjectSettings(
                project=election.project,
                name=election.name,
                policy=options.policy,
                preferred=options.preferred or election.node,
                updated_by=election.node,
            ),
        )
        self._candidate = Candidate(
            election,
            self._timing,
            self._lease,
            preference=self._preference,
            nodes=Kv(bus, buckets.NODES),
            freshness=freshness,
        )
        self._events = Publisher(bus)
        self._held: HeldLease | None = None
        self._draining = self._opened = False
        self._wake, self._changed = asyncio.Event(), asyncio.Event()
        self._shown: LeadershipView | None = None

    async def run(self, ready: Ready) -> None:
        """Keep leadership until cancelled; then give the lease back."""
        await self._open()
        try:
            with first_failure():
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._watch_lease(), name="watch lease")
                    group.create_task(self._watch_preference(), name="watch project settings")
                    group.create_task(self._reopen_on_reconnect(), name="reopen buckets")
                    group.create_task(self._events.run(), name="leadership events")
                    group.create_task(self._loop(group, ready), name="lease loop")
        finally:
            await self._release("stopped", issued_by=self.node)
            await self._events.finish(deadline=Deadline.after(RELEASE))

    def view(self) -> LeadershipView:
        """Return leadership as known now; the role is primary only while this node may act."""
        ours, entry, preference = self._held, self._candidate.entry, self._preference.known
        leads = ours is not None and rules.may_act(self._now(), ours.held, self._timing)
        record = ours.record if leads and ours else entry.value if entry else None
        others = record is not None and record.primary_node_id != self.node
        return LeadershipView(
            role=Role.PRIMARY if leads else Role.SECONDARY,
            epoch=record.epoch if record else 0,
            leader=record.primary_node_id if record and (leads or others) else None,
            preferred=preference.preferred if self._opened else None,
            policy=preference.policy,
            record=record,
        )

    def epoch_for_commit(self) -> int:
        """Return the epoch to commit under; raise LeaseLostError when this node is not primary now."""
        view = self.view()
        if view.role is not Role.PRIMARY:
            raise LeaseLostError(
                f"this node is not primary of {self._election.name} now", remedy="run `membridge leader`"
            )
        return view.epoch

    async def changed(self, since: LeadershipView) -> LeadershipView:
        """Wait until role, epoch, leader, preferred node or policy differ from `since`; return the new view."""
        while (view := self.view()).is_like(since):
            # A role also ends by time, which no event announces.
            await self._any_change(GLANCE)
        return view

    async def current(self, *, deadline: Deadline) -> LeadershipReply:
        """Return leadership as stored in the bucket."""
        project = self._election.project
        lease = await self._lease.read(deadline=deadline)
        entry = await self._preference.settings.get(project, deadline=deadline)
        preference = entry.value if entry else self._preference.known
        return LeadershipReply(
            leader=lease.value if lease else None,
            policy=preference.policy,
            preferred=preference.preferred,
            needs_ui_selection=lease is None and preference.policy is Policy.MANUAL,
        )

    async def select(
        self, node: NodeId, *, policy: Policy | None, issued_by: str, deadline: Deadline
    ) -> LeadershipReply:
        """Make `node` the preferred primary and wait until it leads or the deadline passes."""
        present = self._options.is_present
        if present is not None and node != self.node and not await present(node):
            raise InvalidRequestError(
                f"node {node} is not present", remedy="run `membridge nodes` to list those that are", field="node"
            )
        await self._preference.select(node, policy, issued_by, deadline=deadline)
        while not deadline.passed:
            reply = await self.current(deadline=deadline)
            if reply.leader is not None and reply.leader.primary_node_id == node:
                return reply
            await self._any_change(min(GLANCE, deadline.remaining()))
        return await self.current(deadline=Deadline.after(RELEASE))

    async def resign(self, *, issued_by: str = "", deadline: Deadline) -> LeadershipReply:
        """Flush, release the lease and do not take it again until selected, succeeded by another node, or restarted."""
        self._candidate.resigned = True
        await self._drain(Deadline.after(max(0.0, deadline.remaining() - 2 * RELEASE)))
        await self._release("resigned", issued_by=issued_by)
        return await self.current(deadline=deadline)

    async def _open(self) -> None:
        """Make missing buckets and the project's settings; safe to repeat."""
        replicas, deadline = self._options.replicas, Deadline.after(OPEN)
        for bucket in (buckets.LEADERSHIP, buckets.EPOCHS, buckets.SETTINGS):
            await open_bucket(self._bus, bucket, replicas=replicas, deadline=deadline)
        await self._preference.ensure(deadline=deadline)
        self._opened = True

    async def _reopen_on_reconnect(self) -> None:
        generation = self._bus.generation
        while True:
            generation = await self._bus.wait_generation(generation)
            try:
                await self._open()
            except MembridgeError as error:
                log.warning("leadership not reopened", project=self._election.project, reason=error.message)
            self._tell()

    async def _watch_lease(self) -> None:
        project, read = self._election.project, self._timing.request_timeout
        async for change in watch(self._lease.leases, project, read=read):
            others, ours, entry = self._candidate.look(change), self._held, change.entry
            # What is older than our last write came before it.
            if others and ours is not None and entry is not None and entry.revision > ours.revision:
                self._lose()
            self._tell()

    async def _watch_preference(self) -> None:
        project, read, revision = self._election.project, self._timing.request_timeout, 0
        async for change in watch(self._preference.settings, project, read=read):
            if change.entry is not None:
                value = change.entry.value
                # A node's name written after it resigned means that it is wanted back.
                self._candidate.resigned = self._candidate.resigned and (not revision or value.preferred != self.node)
                self._preference.known, revision = value, change.entry.revision
            self._tell()

    async def _loop(self, group: asyncio.TaskGroup, ready: Ready) -> None:
        backoff = Backoff(0.1, self._timing.request_timeout)
        ready()
        while True:
            try:
                wait = await self._step(group)
                backoff.reset()
            except RevisionMovedError:
                wait = jittered(self._timing.request_timeout, least=0.0)
            except MembridgeError as error:
                wait = backoff.failed()
                if backoff.failures == 1:
                    log.warning("leadership step failed", project=self._election.project, reason=error.message)
                if isinstance(error, StreamMissingError):
                    await self._restore()
            self._show()
            await comes_within(self._wake, wait)
            self._wake.clear()

    async def _restore(self) -> None:
        """Make again what a wiped store has lost."""
        try:
            await self._open()
        except MembridgeError as error:
            log.warning("leadership not restored", project=self._election.project, reason=error.message)

    async def _step(self, group: asyncio.TaskGroup) -> float:
        """Do what is due; return the seconds until the next step."""
        ours = self._held
        return await (self._contend() if ours is None else self._hold(group, ours))

    async def _hold(self, group: asyncio.TaskGroup, ours: HeldLease) -> float:
        held, now = ours.held, self._now()
        # Asking which nodes are present must not delay a renewal that is due.
        due = now >= held.sent_at + self._timing.renew_every
        step = rules.step_of_holder(now, held, self._timing, wanted=due or await self._is_wanted())
        if step is Step.STOP:
            self._lose()
            return 0.0
        if step is Step.RENEW:
            await self._renew(ours)
            return 0.0
        if step is Step.HAND_OVER and not self._draining:
            self._draining = True
            # In a task of its own: the loop renews the lease while the flush runs.
            group.create_task(self._hand_over(), name="hand over")
        until_due = held.sent_at + self._timing.renew_every - self._now()
        return max(0.0, until_due if self._candidate.is_preferred else min(GLANCE, until_due))

    async def _contend(self) -> float:
        outcome = await self._candidate.attempt()
        if not isinstance(outcome, HeldLease):
            return outcome
        self._held, epoch, preference = outcome, outcome.held.epoch, self._preference.known
        self._announce(epoch, self.node, "acquired", issued_by=outcome.record.issued_by)
        self._show()
        if self._candidate.resigned:
            await self._release("resigned", issued_by=self.node)
        elif preference.preferred != self.node:
            # The node that took over is preferred from now on, so that the old one does not take it back unasked.
            deadline = Deadline.after(2 * self._timing.request_timeout)
            await self._preference.take_over(self.node, preference.preferred, deadline=deadline)
        return 0.0

    async def _renew(self, ours: HeldLease) -> None:
        try:
            renewed = await self._lease.renew(ours, deadline=Deadline.after(self._timing.request_timeout))
        except RevisionMovedError:
            if self._held is ours:
                self._lose()
            return
        if self._held is ours:
            self._held = renewed

    async def _hand_over(self) -> None:
        try:
            await self._drain(Deadline.after(FLUSH))
            if not self._candidate.is_preferred:
                self._candidate.stand_aside()
                await self._release("handed over", issued_by=self._preference.known.updated_by)
        finally:
            self._draining = False
            self._wake.set()

    async def _drain(self, deadline: Deadline) -> None:
        """Push unpushed rows. After a failure they are proposed to the next primary, so it stops nothing."""
        if self.view().role is not Role.PRIMARY:
            return
        try:
            async with deadline.scope("flushing before the hand-over"):
                await self._flush(deadline)
        except MembridgeError as error:
            log.warning("not flushed before the hand-over", project=self._election.project, reason=error.message)

    async def _release(self, reason: str, *, issued_by: str) -> None:
        ours, self._held = self._held, None
        if not self._lease.lease_id:
            return
        if ours is not None:
            self._candidate.gave_back()
        try:
            await self._lease.release(deadline=Deadline.after(RELEASE))
        except MembridgeError as error:
            log.info("lease not released", project=self._election.project, reason=error.message)
        if ours is not None:
            self._announce(ours.held.epoch, None, reason, issued_by=issued_by or self.node)
        self._tell()

    def _lose(self) -> None:
        ours, self._held = self._held, None
        if ours is not None:
            log.warning("lease lost", project=self._election.project, epoch=ours.held.epoch)
            self._announce(ours.held.epoch, None, "lost")
        self._tell()

    async def _is_wanted(self) -> bool:
        """Return False when the project prefers another node that is present."""
        preferred, present = self._preference.known.preferred, self._options.is_present
        if preferred is None or preferred == self.node:
            return True
        if present is None:
            return False
        try:
            async with Deadline.after(self._timing.request_timeout).scope("looking for the preferred primary"):
                return not await present(preferred)
        except MembridgeError:
            return True

    async def _any_change(self, seconds: float) -> None:
        await comes_within(self._changed, seconds)

    def _tell(self) -> None:
        self._wake.set()
        self._show()

    def _show(self) -> None:
        view = self.view()
        if self._shown is not None and view.is_like(self._shown):
            return
        self._shown = view
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _announce(self, epoch: int, primary: NodeId | None, reason: str, *, issued_by: str = "") -> None:
        """Publish that `primary` leads under `epoch`, or with None that no node leads under it any more."""
        project = self._election.project
        log.info("leadership changed", project=project, epoch=epoch, primary=primary, reason=reason, by=issued_by)
        self._events.announce(
            LeadershipChanged(
                project=project,
                node=self.node,
                at=clock.stamp(),
                epoch=epoch,
                primary=primary,
                reason=reason,
                issued_by=issued_by,
            )
        )
