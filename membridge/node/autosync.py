"""What a node does by itself for one project: notice, wait for a quiet moment, push or propose; follow the head.

Three watchers report changes; one worker acts on them and looks again every few minutes in any case. A missed report
loses nothing: the worker compares states and does not count events. A failed round is retried if the error table says
so; no failure ends the worker or a watcher.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from pathlib import Path

from membridge.aio import threads
from membridge.aio.backoff import Backoff, jittered, kept_running, pause_after
from membridge.aio.deadline import Deadline, comes_within
from membridge.aio.lifecycle import Ready
from membridge.aio.tasks import first_failure
from membridge.bus.streams import Delivery, WorkQueue
from membridge.bus.watch import watch
from membridge.claudemem.change_events import changes
from membridge.errors import DatabaseMissingError, MembridgeError, UnavailableError
from membridge.node import rules
from membridge.node.jobs import Jobs
from membridge.node.project import Project
from membridge.snapshot.proposals import RESUBMIT_AFTER
from membridge.system import clock, files
from membridge.system.logging import get_logger
from membridge.system.problem import Problem
from schemas.commits import GcRequest
from schemas.errors import ErrorCode, Retry
from schemas.identity import node_id
from schemas.leadership import Role
from schemas.snapshot import PushOutcome, PushRequest

log = get_logger("membridge.autosync")

#: Seconds that giving leadership away may take.
GIVE_WAY = 15.0
#: Seconds until a look that never comes.
_NEVER = 1e9


@dataclass(slots=True)
class _Due:
    """Work that is due. Watchers set it, the worker takes it; both run in one event loop."""

    changed_first: float | None = None
    changed_last: float = 0.0
    head: bool = True
    role: bool = True
    #: Whether to look for unsent rows that no watcher reported.
    look: bool = False


class AutoSync:
    """The automatic part of one project; it looks again for what is unsynced every `look_again` seconds at least.

    With None for that it watches nothing and never looks by itself: it acts when a session asks.
    """

    def __init__(
        self,
        project: Project,
        jobs: Jobs,
        *,
        quiet: rules.Quiet,
        look_again: float | None,
        on_change: Callable[[], None],
    ) -> None:
        self._project, self._jobs, self._quiet, self._on_change = project, jobs, quiet, on_change
        self._watches = look_again is not None
        self._due = _Due(head=self._watches, role=self._watches)
        self._woken = asyncio.Event()
        #: Set after the round that begins next, whatever its outcome.
        self._done = asyncio.Event()
        self._look_again, self._look_at = look_again or _NEVER, 0.0
        #: Rows that were offered last and wait for the primary, and since when; None after a failure.
        self._left: int | None = None
        self._left_at = 0.0
        self._problem = Problem(log, "sync failed")

    async def run(self, ready: Ready) -> None:
        """Sync until cancelled."""
        watchers = {"head": self._watch_head, "database": self._watch_database, "role": self._watch_role}
        with first_failure():
            async with asyncio.TaskGroup() as group:
                for what, watch_on in watchers.items() if self._watches else ():
                    group.create_task(_lasting(what, watch_on), name=f"watch {what}")
                group.create_task(self._work(), name="sync worker")
                ready()

    @property
    def last_error(self) -> str | None:
        """Why the last round failed, None when it did not."""
        return self._problem.reason or None

    def send_soon(self) -> None:
        """Push or propose what is unsynced in the next round, without waiting for a quiet moment."""
        self._due.changed_first = -float("inf")
        self._wake()

    async def catch_up(self, *, deadline: Deadline) -> None:
        """Return once the head is in this node's database; the sync worker pulls it if need be, in its next round.

        The pull goes on if the deadline comes first. Errors: DeadlineExceededError, those of the pull and the bus.
        """
        tried = False
        while await self._project.is_behind(deadline=deadline):
            if tried and self.last_error is not None:
                raise UnavailableError(self.last_error, remedy="read the log of the daemon")
            done, self._due.head, tried = self._done, True, True
            self._wake()
            async with deadline.scope("pulling the newest memory"):
                await done.wait()

    def _wake(self) -> None:
        self._woken.set()

    async def _watch_head(self) -> None:
        lane = self._project.lane
        async for change in watch(lane.heads, lane.project):
            if change.entry is not None:
                self._project.figures.saw_head(change.entry.value.record.seq)
            self._due.head = True
            self._wake()

    async def _watch_database(self) -> None:
        async with aclosing(changes(self._project.lane.database)) as seen:
            async for _ in seen:
                now = time.monotonic()
                self._due.changed_last = now
                if self._due.changed_first is None:
                    self._due.changed_first = now
                self._wake()
                self._project.figures.changed()
                await self._project.feed_index()

    async def _watch_role(self) -> None:
        roles = self._project.roles
        view = roles.view()
        while True:
            view = await roles.changed(view)
            self._due.role = True
            self._wake()

    async def _work(self) -> None:
        backoff = Backoff()
        self._next_look()
        while True:
            wait = self._wait()
            if wait > 0:
                await self._sleep(wait)
                continue
            done, self._done = self._done, asyncio.Event()
            try:
                await self._do_due()
            except MembridgeError as error:
                pause = 0.0 if error.mapping.retry is Retry.NO else backoff.failed()
                self._failed(error)
            except Exception as error:  # noqa: BLE001 - whatever it is, the next round may go well
                pause = backoff.failed()
                self._failed(error)
            else:
                pause = 0.0
                self._problem.over()
            done.set()
            self._on_change()
            if pause:
                self._due.head = self._due.role = self._watches
                self._due.look = True
                await asyncio.sleep(pause)
            else:
                backoff.reset()

    def _wait(self) -> float:
        due, now = self._due, time.monotonic()
        if now >= self._look_at:
            due.head = due.look = True
            due.role = due.role or self.last_error is not None
            self._next_look()
        if due.head or due.role or due.look:
            return 0.0
        until_look = self._look_at - now
        return until_look if due.changed_first is None else min(until_look, self._quiet_in(due))

    def _quiet_in(self, due: _Due) -> float:
        """Return in how many seconds what changed is sent; 0 when nothing did."""
        if due.changed_first is None:
            return 0.0
        return rules.quiet_wait(time.monotonic(), due.changed_first, due.changed_last, self._quiet)

    def _next_look(self) -> None:
        self._look_at = time.monotonic() + jittered(self._look_again)

    async def _sleep(self, seconds: float | None) -> None:
        if await comes_within(self._woken, seconds):
            self._woken.clear()

    async def _do_due(self) -> None:
        due, self._due = self._due, _Due(head=False, role=False)
        if self._quiet_in(due) > 0:
            # The round has another reason: who is still writing is not sent before it is quiet.
            self._due.changed_first, self._due.changed_last = due.changed_first, due.changed_last
            due.changed_first = None
        try:
            await self._sync(due)
        except BaseException:
            self._left = None
            raise

    async def _sync(self, due: _Due) -> None:
        project = self._project
        role = project.roles.view().role
        if due.role and role is Role.PRIMARY and project.roles.enabled:
            await project.lead(project.roles.epoch_for_commit(), deadline=project.deadline())
        pulled = False
        if due.head or due.role:
            pulled = await self._catch_up()
        if due.changed_first is not None or due.role or pulled or (due.look and await self._is_left()):
            await self._send(role)

    async def _is_left(self) -> bool:
        """Return whether there are rows to send, other than those that were offered and wait for the primary."""
        rows = await self._project.unsynced()
        offered = rows == self._left and time.monotonic() - self._left_at < RESUBMIT_AFTER
        return rows > 0 and not offered

    async def _catch_up(self) -> bool:
        project = self._project
        if not await project.is_behind(deadline=Deadline.after(30.0)):
            return False
        reply = await self._jobs.run("pull", lambda progress: project.catch_up(progress, deadline=project.deadline()))
        log.info("pulled", seq=reply.seq, inserted=reply.inserted, conflicts=reply.conflicts)
        return True

    async def _send(self, role: Role) -> None:
        project, rows = self._project, 0
        if not await threads.run(project.lane.database.exists):
            return
        if role is not Role.PRIMARY:
            view = project.roles.view()
            if not rules.proposes_now(project.lane.node, leader=view.leader, preferred=view.preferred):
                return
            rows = await project.count_unsynced(deadline=project.deadline())
            if not rows:
                self._left = 0
                return
        reply = await self._jobs.run(
            "push",
            lambda progress: project.push(PushRequest(), progress, deadline=project.deadline()),
        )
        self._left, self._left_at = rows, time.monotonic()
        log.info("pushed", outcome=reply.outcome, seq=reply.seq, rows=reply.rows)
        if reply.outcome is PushOutcome.COMMITTED:
            await _collect_daily(project, self._jobs)

    def _failed(self, error: Exception) -> None:
        self._problem.failed(error, code=error.code if isinstance(error, MembridgeError) else ErrorCode.INTERNAL)


async def _lasting(what: str, watch_on: Callable[[], Awaitable[None]]) -> None:
    """Watch until cancelled: one that fails begins anew, and the worker looks by itself meanwhile."""

    def failed(error: Exception, _pause: float) -> None:
        log.warning("watcher failed", name=what, reason=str(error) or type(error).__name__, exc_info=error)

    await kept_running(watch_on, name=f"watch {what}", on_failure=failed)


async def _collect_daily(project: Project, jobs: Jobs) -> None:
    """Delete snapshots that are no longer kept when this node is primary and a day has passed; the first begins now.

    A failure is logged and retried after the next push.
    """
    if project.roles.view().role is not Role.PRIMARY:
        return

    async def collect() -> None:
        reply = await jobs.run(
            "gc",
            lambda progress: project.collect_garbage(GcRequest(), progress, deadline=project.deadline()),
        )
        log.info("garbage collected", deleted=reply.snapshots, bytes=reply.freed_bytes)

    try:
        await _daily(project.lane.folder / "collected", collect)
    except MembridgeError as error:
        log.warning("garbage not collected", reason=error.message, remedy=error.remedy)


async def _daily(stamp: Path, task: Callable[[], Awaitable[None]]) -> None:
    """Do a task if it was not done for a day. A file has the time of the last one, so restarts do not count as days."""
    last, now = await threads.run(_read_stamp, stamp), clock.now().timestamp()
    if last is not None and not rules.is_daily_due(last, now):
        return
    if last is not None:
        await task()
    await threads.run(files.save, stamp, str(now).encode())


def _read_stamp(stamp: Path) -> float | None:
    try:
        return float(stamp.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        # Damaged: of an instant so long ago that the task is due.
        return 0.0


class ProposalIntake:
    """Takes in proposals while this node is primary; elsewhere it waits for the role."""

    def __init__(self, project: Project, jobs: Jobs, queue: WorkQueue, *, on_change: Callable[[], None]) -> None:
        self._project, self._jobs, self._queue, self._on_change = project, jobs, queue, on_change
        #: Set after the batch that ends next, whatever its outcome.
        self._done = asyncio.Event()

    async def catch_up(self, *, deadline: Deadline) -> None:
        """Return once no proposal waits for this primary, elsewhere at once.

        Errors: DeadlineExceededError, those of the bus.
        """
        while self._project.roles.view().role is Role.PRIMARY:
            done = self._done
            if not await self._queue.waiting(deadline=deadline):
                return
            async with deadline.scope("taking in what other machines offered"):
                await done.wait()

    async def run(self, ready: Ready) -> None:
        """Take proposals in until cancelled. One that fails for a passing reason comes back later."""
        ready()
        roles = self._project.roles
        while True:
            view = roles.view()
            if view.role is not Role.PRIMARY or not roles.enabled:
                await roles.changed(view)
                continue
            deliveries = await self._queue.fetch(wait=5.0)
            if not deliveries:
                continue
            try:
                taken = await self._jobs.run(
                    "proposals",
                    lambda progress, batch=deliveries: self._project.take_in(
                        batch, progress, deadline=self._project.deadline()
                    ),
                )
            except Exception as error:  # noqa: BLE001 - whatever it is, these come again and others may go well
                await self._hand_back(deliveries, error)
            else:
                log.info("proposals taken in", rows=taken.proposals, seq=taken.seq)
            done, self._done = self._done, asyncio.Event()
            done.set()
            self._on_change()

    async def _hand_back(self, deliveries: list[Delivery], error: Exception) -> None:
        ours = isinstance(error, MembridgeError)
        log.warning("proposals not taken in", reason=str(error) or repr(error), exc_info=None if ours else error)
        if isinstance(error, DatabaseMissingError):
            await self._give_way(deliveries[0])
        for delivery in deliveries:
            # While NATS is away the nak is lost; the queue then delivers the proposal again by itself.
            with suppress(MembridgeError):
                await delivery.nak(pause_after(delivery.attempts))

    async def _give_way(self, delivery: Delivery) -> None:
        """Hand leadership to the proposer when this primary has neither a database nor a snapshot."""
        proposer, deadline = node_id(delivery.message.subject.rpartition(".")[2]), Deadline.after(GIVE_WAY)
        try:
            if await self._project.has_nothing(deadline=deadline):
                log.info("leadership goes to who has a memory", node=proposer)
                await self._project.roles.give_way(proposer, deadline=deadline)
        except MembridgeError as error:
            log.info("leadership not given away", reason=error.message)
