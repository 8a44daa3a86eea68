"""Keeps, follows or contends for the lease of one project.

One loop: look at what is known, take one step, wait for a change or the next instant. It decides by `rules`, writes by
compare-and-set, and never believes to lead longer than two thirds of a TTL after it sent its last renewal.
"""

import asyncio
import random
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import msgspec

from membridge.bus.connection import Bus
from membridge.bus.kv import Entry, Kv, open_bucket
from membridge.bus.watch import watch
from membridge.deadline import Deadline
from membridge.errors import InvalidRequestError, LeaseLostError, MembridgeError, RevisionMovedError
from membridge.leadership import rules
from membridge.leadership.rules import Held, Seen, Standing, Step, Terms
from membridge.lifecycle import Ready
from membridge.logging import get_logger
from schemas import buckets, subjects
from schemas.events import LeadershipChanged, encode_event
from schemas.identity import NodeId, ProjectId
from schemas.leadership import EpochCounter, LeaderRecord, LeadershipReply, Policy, ProjectSettings, Role

log = get_logger("membridge.leadership")

#: Seconds a hand-over's flush may take, and the release at a stop.
FLUSH, RELEASE = 30.0, 2.0
#: Seconds between two looks at a state that no event announces, such as a mirror that caught up.
LOOK = 1.0


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
class LeadershipView:
    """Leadership as this node knows it now."""

    role: Role
    epoch: int
    leader: NodeId | None
    preferred: NodeId | None
    policy: Policy
    record: LeaderRecord | None


@dataclass(frozen=True, slots=True)
class Contest:
    """What is led, and the node that would."""

    project: ProjectId
    name: str
    node: NodeId


@dataclass(frozen=True, slots=True)
class _Entries:
    leases: Kv[LeaderRecord]
    epochs: Kv[EpochCounter]
    settings: Kv[ProjectSettings]


class Keeper:
    """Leadership of one project on this node."""

    def __init__(
        self,
        bus: Bus,
        contest: Contest,
        *,
        options: KeeperOptions,
        standing: Callable[[], Awaitable[Standing]],
        flush: Callable[[Deadline], Awaitable[None]],
    ) -> None:
        self.node = contest.node
        self._bus, self._project, self._name, self._options = bus, contest.project, contest.name, options
        self._standing, self._flush = standing, flush
        self._terms = Terms.of(options.lease_seconds, options.grace_seconds)
        self._entries: _Entries | None = None
        self._entry: Entry[LeaderRecord] | None = None
        self._seen = Seen(None, 0.0)
        self._settings: ProjectSettings | None = None
        self._held: Held | None = None
        self._revision = 0
        self._resigned = False
        self._wake = asyncio.Event()
        self._changed = asyncio.Event()
        self._shown: LeadershipView | None = None

    async def run(self, ready: Ready) -> None:
        """Keep leadership until cancelled; then give the lease back."""
        self._entries = await self._open()
        self._seen = Seen(None, self._options.now())
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._watch_lease(), name="watch lease")
                group.create_task(self._watch_settings(), name="watch project settings")
                group.create_task(self._loop(ready), name="lease loop")
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        finally:
            await self._release("stopped")

    def view(self) -> LeadershipView:
        """Return leadership as known now; the role is primary only while this node may act."""
        leads = rules.may_act(self._options.now(), self._held, self._terms)
        record = self._entry.value if self._entry else None
        settings = self._settings
        epoch = self._held.epoch if leads and self._held else record.epoch if record else 0
        leader = self.node if leads else record.primary_node_id if record else None
        if not leads and leader == self.node:
            leader = None
        return LeadershipView(
            role=Role.PRIMARY if leads else Role.SECONDARY,
            epoch=epoch,
            leader=leader,
            preferred=settings.preferred if settings else None,
            policy=settings.policy if settings else self._options.policy,
            record=record,
        )

    def epoch_for_commit(self) -> int:
        """Return the epoch to commit under; raise LeaseLostError when this node is not primary now."""
        view = self.view()
        if view.role is not Role.PRIMARY:
            raise LeaseLostError(f"this node is not primary of {self._name} now", remedy="run `membridge leader`")
        return view.epoch

    async def changed(self, since: LeadershipView) -> LeadershipView:
        """Return the view as soon as role, epoch or leader differ from `since`."""
        while _same(view := self.view(), since):
            waited = self._changed
            try:
                # A role ends by the passing of time too, and nobody announces that.
                async with asyncio.timeout(LOOK):
                    await waited.wait()
            except TimeoutError:
                continue
        return view

    async def current(self, *, deadline: Deadline) -> LeadershipReply:
        """Return leadership as the bucket has it."""
        entries = self._opened()
        lease = await entries.leases.get(self._project, deadline=deadline)
        settings = await entries.settings.get(self._project, deadline=deadline)
        policy = settings.value.policy if settings else self._options.policy
        return LeadershipReply(
            leader=lease.value if lease else None,
            policy=policy,
            preferred=settings.value.preferred if settings else None,
            needs_ui_selection=lease is None and policy is Policy.MANUAL,
        )

    async def select(
        self, node: NodeId, *, policy: Policy | None, issued_by: str, deadline: Deadline
    ) -> LeadershipReply:
        """Make `node` the preferred primary and wait until it leads, or until the deadline."""
        present = self._options.is_present
        if present is not None and node != self.node and not await present(node):
            raise InvalidRequestError(
                f"node {node} is not present", remedy="see `membridge nodes` for those that are", field="node"
            )
        await self._prefer(node, policy, issued_by, deadline=deadline)
        while not deadline.passed:
            reply = await self.current(deadline=deadline)
            if reply.leader is not None and reply.leader.primary_node_id == node:
                return reply
            changed = self._changed
            try:
                async with asyncio.timeout(min(LOOK, deadline.remaining())):
                    await changed.wait()
            except TimeoutError:
                continue
        return await self.current(deadline=Deadline.after(RELEASE))

    async def resign(self, *, deadline: Deadline) -> LeadershipReply:
        """Flush, give the lease back and do not take it again until selected or restarted."""
        self._resigned = True
        await self._flush(deadline)
        await self._release("resigned")
        return await self.current(deadline=deadline)

    async def _open(self) -> _Entries:
        replicas, deadline = self._options.replicas, Deadline.after(30.0)
        entries = _Entries(
            await open_bucket(self._bus, buckets.LEADERSHIP, replicas=replicas, deadline=deadline),
            await open_bucket(self._bus, buckets.EPOCHS, replicas=replicas, deadline=deadline),
            await open_bucket(self._bus, buckets.SETTINGS, replicas=replicas, deadline=deadline),
        )
        try:
            first = ProjectSettings(
                project=self._project,
                name=self._name,
                policy=self._options.policy,
                preferred=self._options.preferred or self.node,
                updated_by=self.node,
            )
            await entries.settings.create(self._project, first, deadline=deadline)
        except RevisionMovedError:
            pass  # another node was first
        entry = await entries.settings.get(self._project, deadline=deadline)
        self._settings = entry.value if entry else None
        return entries

    async def _watch_lease(self) -> None:
        async for change in watch(self._opened().leases, self._project):
            now = self._options.now()
            previous, self._entry = self._entry, change.entry
            if change.entry is None:
                self._seen = Seen(None, now)
            elif previous is None or previous.revision != change.entry.revision:
                self._seen = Seen(now, now)
            if change.entry is None or change.entry.value.primary_node_id != self.node:
                self._drop_if_lost(change.entry)
            self._tell()

    async def _watch_settings(self) -> None:
        async for change in watch(self._opened().settings, self._project):
            if change.entry is not None:
                if self._settings is None or change.entry.value.updated_by != self._settings.updated_by:
                    self._resigned = self._resigned and change.entry.value.preferred != self.node
                self._settings = change.entry.value
            self._tell()

    async def _loop(self, ready: Ready) -> None:
        failures = 0
        ready()
        while True:
            try:
                wait = await self._step()
                failures = 0
            except RevisionMovedError:
                self._held = None
                wait = LOOK * random.random()  # noqa: S311 - jitter
            except MembridgeError as error:
                failures += 1
                log.warning("leadership step failed", reason=error.message)
                wait = min(self._terms.request_timeout, 0.1 * 2**failures) * (0.5 + random.random() / 2)  # noqa: S311
            self._tell_if_different()
            try:
                async with asyncio.timeout(wait):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()

    async def _step(self) -> float:
        """Do what is due and return the seconds until the next look."""
        now = self._options.now()
        if self._held is not None:
            return await self._step_of_holder(now, self._held)
        settings = self._settings
        preferred = settings is not None and settings.preferred == self.node
        policy = settings.policy if settings else self._options.policy
        if self._resigned:
            return LOOK
        wait = rules.wait_of_contender(now, self._seen, self._terms, preferred=preferred, policy=policy)
        if wait is None:
            return LOOK
        if wait > 0.0:
            return wait
        standing = await self._standing()
        if not rules.is_candidate(standing):
            return min(LOOK, self._terms.renew_every)
        await self._acquire(standing)
        if not preferred:
            # Whoever took over is the preferred one from now on: the old one must not take it back unasked.
            await self._prefer(self.node, None, "take-over", deadline=Deadline.after(RELEASE))
        return 0.0

    async def _step_of_holder(self, now: float, held: Held) -> float:
        settings = self._settings
        preferred = settings.preferred if settings else None
        wanted = preferred in {None, self.node} or not await self._is_there(preferred)
        step = rules.step_of_holder(now, held, self._terms, wanted=wanted)
        if step is Step.STOP:
            log.warning("lease not renewed in time", epoch=held.epoch)
            self._held = None
            return 0.0
        if step is Step.HAND_OVER:
            await self._hand_over()
            return LOOK
        if step is Step.RENEW:
            await self._renew(held)
        renewed = self._held or held
        return max(0.01, renewed.sent_at + self._terms.renew_every - self._options.now())

    async def _is_there(self, node: NodeId | None) -> bool:
        return node is not None and (self._options.is_present is None or await self._options.is_present(node))

    async def _hand_over(self) -> None:
        try:
            await self._flush(Deadline.after(min(FLUSH, self._terms.acts_for)))
        except MembridgeError as error:
            log.warning("not flushed before the hand-over", reason=error.message)
        await self._release("handed over")

    async def _acquire(self, standing: Standing) -> None:
        entries, deadline = self._opened(), Deadline.after(self._terms.request_timeout * 3)
        counter = await entries.epochs.get(self._project, deadline=deadline)
        lease = await entries.leases.get(self._project, deadline=deadline)
        known = (counter.value.epoch if counter else 0, lease.value.epoch if lease else 0, standing.head_epoch)
        epoch = rules.next_epoch(*known)
        claim = EpochCounter(epoch=epoch)
        if counter is None:
            await entries.epochs.create(self._project, claim, deadline=deadline)
        else:
            await entries.epochs.update(self._project, claim, revision=counter.revision, deadline=deadline)
        sent = self._options.now()
        record = self._record(epoch)
        if lease is None:
            revision = await entries.leases.create(self._project, record, ttl=self._terms.ttl, deadline=deadline)
        elif self._entry is not None and lease.revision == self._entry.revision:
            revision = await entries.leases.update(
                self._project, record, revision=lease.revision, ttl=self._terms.ttl, deadline=deadline
            )
        else:
            raise RevisionMovedError(f"the lease of {self._name} was renewed meanwhile")
        self._held, self._revision = Held(epoch, sent), revision
        log.info("leads", project=self._project, epoch=epoch)
        await self._publish(epoch, self.node, "acquired")

    async def _renew(self, held: Held) -> None:
        sent = self._options.now()
        self._revision = await self._opened().leases.update(
            self._project,
            self._record(held.epoch),
            revision=self._revision,
            ttl=self._terms.ttl,
            deadline=Deadline.after(self._terms.request_timeout),
        )
        self._held = Held(held.epoch, sent)

    async def _release(self, reason: str) -> None:
        held, self._held = self._held, None
        if held is None or self._entries is None:
            return
        try:
            await self._entries.leases.delete(self._project, revision=self._revision, deadline=Deadline.after(RELEASE))
        except MembridgeError as error:
            log.info("lease not released", reason=error.message)
        self._tell()
        await self._publish(held.epoch, None, reason)

    def _drop_if_lost(self, entry: Entry[LeaderRecord] | None) -> None:
        """Forget our lease when the bucket shows a newer entry than our last write."""
        if self._held is not None and entry is not None and entry.revision > self._revision:
            self._held = None

    async def _prefer(self, node: NodeId, policy: Policy | None, issued_by: str, *, deadline: Deadline) -> None:
        entries = self._opened()
        while True:
            entry = await entries.settings.get(self._project, deadline=deadline)
            stamp = f"{issued_by or self.node} {secrets.token_hex(4)}"
            if entry is None:
                wanted = ProjectSettings(project=self._project, name=self._name, preferred=node, updated_by=stamp)
            else:
                wanted = msgspec.structs.replace(
                    entry.value, preferred=node, policy=policy or entry.value.policy, updated_by=stamp
                )
            try:
                if entry is None:
                    await entries.settings.create(self._project, wanted, deadline=deadline)
                else:
                    await entries.settings.update(self._project, wanted, revision=entry.revision, deadline=deadline)
            except RevisionMovedError:
                deadline.check("selecting a primary")
                continue
            return

    def _record(self, epoch: int) -> LeaderRecord:
        now = datetime.now(UTC)
        return LeaderRecord(
            primary_node_id=self.node,
            epoch=epoch,
            issued_at=now.isoformat(),
            expires_at=(now + timedelta(seconds=self._terms.ttl)).isoformat(),
            lease_seconds=self._terms.ttl,
            policy=self._settings.policy if self._settings else self._options.policy,
            issued_by=self.node,
            term=secrets.token_hex(4),
        )

    async def _publish(self, epoch: int, primary: NodeId | None, reason: str) -> None:
        event = LeadershipChanged(
            project=self._project,
            node=self.node,
            at=datetime.now(UTC).isoformat(),
            epoch=epoch,
            primary=primary,
            reason=reason,
        )
        subject = subjects.fill(subjects.EVENT, project=self._project, kind="leadership_changed")
        try:
            await self._bus.stream_publish(
                subject, encode_event(event), message_id=secrets.token_hex(16), deadline=Deadline.after(RELEASE)
            )
        except MembridgeError as error:
            log.warning("event not published", reason=error.message)

    def _opened(self) -> _Entries:
        if self._entries is None:
            raise LeaseLostError(f"leadership of {self._name} has not started")
        return self._entries

    def _tell(self) -> None:
        self._wake.set()
        self._tell_if_different()

    def _tell_if_different(self) -> None:
        view = self.view()
        if self._shown is not None and _same(view, self._shown):
            return
        self._shown = view
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def _same(one: LeadershipView, other: LeadershipView) -> bool:
    return (one.role, one.epoch, one.leader, one.preferred, one.policy) == (
        other.role,
        other.epoch,
        other.leader,
        other.preferred,
        other.policy,
    )
