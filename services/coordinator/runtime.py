"""What may be asked of a term: submit, cancel, requeue, and what workers say under their leases.

Every answer is given when it is durable. A worker's word counts under the live lease only; what comes late or twice is
refused and changes nothing. What is live is in the book and changes without a pause between looking and changing; what
needs the database for that (a task that ended, a key that may be known) is done one at a time for each.
"""

import asyncio
import random
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial

from membridge.bus.bulk import MOST_REQUEST
from membridge.errors import InvalidRequestError, MembridgeError, TooLargeError
from membridge.system import clock
from membridge.system.logging import get_logger
from schemas.leases import Accepted, Lease, LeaseClaim, LeaseStatus, OutputPart, Report
from schemas.results import Artifact, Result, ResultStatus
from schemas.tasks import Task, TaskSpec, TaskStatus
from schemas.wire import encode
from schemas.workers import Worker, WorkerStatus
from services.coordinator import loading, machine
from services.coordinator.keyed_locks import KeyedLocks
from services.coordinator.live_tasks import AuditNote, Listeners, LiveTasks, audit, state_of
from services.coordinator.machine import TaskState
from services.coordinator.port import Port
from services.coordinator.pulling import Pulling
from services.coordinator.scheduler import BackgroundTask, Scheduler
from services.coordinator.store.queries import Queries, artifact_row, new_task, result_row
from services.coordinator.store.statements import DELETE_WORKER, INSERT_ARTIFACT, INSERT_RESULT
from services.coordinator.timers import Timers
from services.coordinator.workers import Workers
from services.database.group_commit import GroupCommit, UnstorableError, durable
from services.database.statements import Write

log = get_logger("membridge.coordinator")

#: Bytes of an output that stays in its row; what is larger is an object.
INLINE = 64 << 10
#: Characters of an error that a task keeps as its reason; its result has the whole of it.
REASON = 4_000
#: Bytes that an order has beside its task.
ORDER = 4 << 10
#: Seconds without a word after which a worker counts as gone.
SILENCE = 30.0
#: Seconds between two comparisons with KV, and with the clock.
ROUND = 15.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What the settings allow."""

    max_prompt_bytes: int = 1 << 20
    max_output_bytes: int = 8 << 20
    lease_seconds: int = 300
    #: Seconds that a lease outlives its task's timeout at least.
    margin_seconds: int = 30
    #: Tasks of one context run one at a time, in order.
    serial: bool = True

    def lease_of(self, timeout_sec: int) -> int:
        """Return the seconds that a lease lives whose task may take so long."""
        return max(self.lease_seconds, timeout_sec + self.margin_seconds)


class Runtime:
    """One term. Made anew, from the database, for each; `group` is where its errands run."""

    def __init__(
        self,
        group: asyncio.TaskGroup,
        group_commit: GroupCommit,
        queries: Queries,
        workers: Workers,
        port: Port,
        limits: Limits,
    ) -> None:
        self._group, self._port, self._limits = group, port, limits
        self.queries, self.workers = queries, workers
        self._timers = Timers()
        listeners = Listeners(
            ended=self._lease_ended, expired=self.expire, due=self._fall_due, refused=self._change_refused
        )
        self.live_tasks = LiveTasks(group_commit, workers, self._timers, listeners, serial=limits.serial)
        self.scheduler = Scheduler(
            self.live_tasks, workers, port, queries, self._timers, self._in_background, limits.lease_of
        )
        self._locks = KeyedLocks()
        self.pulling = Pulling(self.live_tasks, workers, self.scheduler, queries)
        #: The tasks of keys that are not durable yet.
        self._keys: dict[str, tuple[Task, asyncio.Future[None]]] = {}
        self._parts: dict[str, list[str]] = {}
        #: Leases of an earlier term whose workers had not said yet that they took the task.
        self._untold: set[str] = set()

    async def load(self, sticky: dict[str, tuple[str, str | None]], kept: Collection[str] = ()) -> None:
        """Take up what the database says: tasks, and leases with the time they have left.

        A lease that is `kept` in KV has not expired by the server's clock, and will say so when it does (`lapse`).
        """
        self._untold = await loading.load(self.live_tasks, self.queries, kept)
        self.scheduler.load(sticky)
        self.scheduler.schedule()

    def close(self) -> None:
        """Let no timer of this term fire any more."""
        self._timers.close()

    async def submit(self, spec: TaskSpec, *, actor: str) -> Task:
        """Take in a task; the same `idempotency_key` gives the first one again.

        Errors: TooLargeError, InvalidRequestError for an instant that is none, OverloadedError.
        """
        size = len(spec.prompt.encode())
        if size > self._limits.max_prompt_bytes:
            most = self._limits.max_prompt_bytes
            raise TooLargeError(
                f"the prompt has {size:,} bytes, at most {most:,} are allowed",
                remedy="shorten it, or name files for the worker to read: `--hint`, `context_hints`",
                field="prompt",
            )
        key = spec.idempotency_key
        if key is None:
            return await self._take_in(spec, actor)
        async with self._locks.of(f"key {key}"):
            if (known := self._keys.get(key)) is not None:
                await durable(known[1])
                return known[0]
            return await self.queries.task_of_key(key) or await self._take_in(spec, actor)

    async def _take_in(self, spec: TaskSpec, actor: str) -> Task:
        task = new_task(spec, str(uuid.uuid4()), at=clock.stamp())
        if (whole := len(encode(task))) > MOST_REQUEST - ORDER:
            raise TooLargeError(
                f"the prompt is too large: as JSON the task has {whole:,} bytes, at most {MOST_REQUEST - ORDER:,} fit",
                field="prompt",
            )
        self.live_tasks.admit()
        done = self.live_tasks.create(task, actor=actor)
        if (key := spec.idempotency_key) is not None:
            # Who asked may be gone before it is durable.
            self._keys[key] = task, done
            done.add_done_callback(lambda _: self._keys.pop(key))
        self.scheduler.remember(task)
        self._in_background(partial(self.scheduler.tell, state_of(task), done))
        self.scheduler.schedule()
        await durable(done)
        return task

    async def cancel(self, task_id: str, *, reason: str, actor: str) -> Task:
        """End a live task; a worker that has it is told to stop. Errors: NotFoundError, WrongStateError."""
        async with self._locks.of(task_id):
            before = await self._state(task_id)
            after = machine.cancel(before, reason=reason or "cancelled")
            self.live_tasks.admit()
            held = self.live_tasks.leases.get(before.lease_id or "")
            done = self._change(before, after, AuditNote("cancelled", actor, after.reason))
        if held is not None:
            self._in_background(partial(self._stop, held.lease, done))
        await self._stored(task_id, done)
        return await self.queries.task(task_id)

    async def requeue(self, task_id: str, *, actor: str) -> Task:
        """Revive a failed or dead task, in its place in its context. Errors: NotFoundError, WrongStateError."""
        async with self._locks.of(task_id):
            before = await self._state(task_id)
            after = machine.requeue(before)
            self.live_tasks.admit()
            earlier = [] if task_id in self.live_tasks.tasks else await self.queries.earlier(task_id, machine.LIVE)
            done = self._change(before, after, AuditNote("requeued", actor), earlier=earlier)
        await self._stored(task_id, done)
        return await self.queries.task(task_id)

    async def _state(self, task_id: str) -> TaskState:
        """Return a task as the book has it or, once it ended, as the database does. Raises NotFoundError.

        Who calls has the task for itself: nobody else revives it.
        """
        if task_id not in self.live_tasks.tasks:
            await self.live_tasks.settled(task_id)
        return self.live_tasks.tasks.get(task_id) or state_of(await self.queries.task(task_id))

    async def _stored(self, task_id: str, done: "asyncio.Future[None]") -> None:
        """Wait until a change is durable; of one that the database refused, until the task is believed as it is."""
        try:
            await durable(done)
        except UnstorableError:
            async with self._locks.of(task_id):
                raise

    async def _reread(self, task_id: str) -> None:
        async with self._locks.of(task_id):
            await loading.reread(self.live_tasks, self.queries, task_id)
        self.scheduler.schedule()

    async def heartbeat(self, claim: LeaseClaim) -> Lease:
        """Let a lease live on. Raises LeaseLostError when it is not the live one."""
        _, held = self.live_tasks.claimed(claim)
        self.live_tasks.admit()
        self.workers.speak(claim.worker_id, asyncio.get_running_loop().time(), clock.stamp())
        done = self.live_tasks.renew(held)
        lease = held.lease
        self._in_background(partial(self._hold, lease, done))
        await durable(done)
        return lease

    async def take_part(self, part: OutputPart) -> Accepted:
        """Keep a piece of a large output until its report. Errors: LeaseLostError, TooLargeError, one out of order."""
        self.live_tasks.claimed(part)
        parts = self._parts.setdefault(part.lease_id, [])
        if part.index < len(parts):
            return Accepted(accepted=True)
        if part.index > len(parts):
            raise InvalidRequestError(f"part {len(parts)} of the output comes next, not {part.index}", field="index")
        if sum(map(len, parts)) + len(part.text) > self._limits.max_output_bytes:
            raise TooLargeError(f"an output may have {self._limits.max_output_bytes} bytes")
        parts.append(part.text)
        return Accepted(accepted=True)

    async def report(self, report: Report) -> Accepted:
        """Accept an attempt's end. Errors: LeaseLostError, InvalidRequestError naming what is missing, the store's."""
        self.live_tasks.claimed(report)
        output = self._output_of(report)
        if report.status is ResultStatus.SUCCESS and output is None:
            raise InvalidRequestError("a success needs an output", field="output")
        if report.status is ResultStatus.ERROR and not report.error_message:
            raise InvalidRequestError("an error needs a message", field="error_message")
        at, artifact, also = clock.stamp(), None, list[Write]()
        if output is not None and report.status is ResultStatus.SUCCESS:
            artifact, also = await self._keep(report, output, at)
        # What was awaited may have taken the lease away.
        before, _ = self.live_tasks.claimed(report)
        self.live_tasks.admit()
        also.append(Write(INSERT_RESULT, result_row(_result(report, output, artifact, at), lease_id=report.lease_id)))
        if report.status is ResultStatus.SUCCESS:
            after = machine.complete(before)
            done = self._change(before, after, AuditNote("completed", report.worker_id), also=also)
        else:
            message = (report.error_message or "").strip()
            now, chance = clock.now().timestamp(), random.random()  # noqa: S311 - jitter
            after = machine.fail(before, reason=message[:REASON], now=now, chance=chance)
            note = AuditNote("failed", report.worker_id, message[:500])
            done = self._change(before, after, note, lease=LeaseStatus.FAILED, also=also)
        self.scheduler.stick(before.context_id, report.worker_id, report.session)
        await self._stored(before.id, done)
        return Accepted(accepted=True)

    async def hand_back(self, claim: LeaseClaim) -> Accepted:
        """Take a task back from a worker that stops. Raises LeaseLostError."""
        before, _ = self.live_tasks.claimed(claim)
        after = machine.hand_back(before, reason=claim.reason or "handed back")
        self.live_tasks.admit()
        done = self._change(before, after, AuditNote("handed_back", claim.worker_id, after.reason))
        # It stops: nothing more for it until it is heard of again.
        self.workers.lose(claim.worker_id, WorkerStatus.SYNCING, after.reason)
        await durable(done)
        return Accepted(accepted=True)

    async def drain(self, worker_id: str, *, drained: bool, actor: str) -> Worker:
        """Let a worker have no new tasks, or have them again. Raises NotFoundError."""
        worker = self.workers.get(worker_id)
        note = AuditNote("drained" if drained else "resumed", actor)
        writes = self.workers.writes(worker, drained=drained)
        self.live_tasks.admit()
        done = self.live_tasks.write(*writes, audit(note, worker_id, clock.stamp(), "worker"))
        self.workers.drain(worker_id, drained=drained)
        self.scheduler.schedule()
        await durable(done)
        return self.workers.get(worker_id)

    async def remove_worker(self, worker_id: str, *, actor: str) -> Worker:
        """Forget a worker that is not there; one that is heard of again is new. Errors: NotFoundError, RefusedError."""
        self.workers.check_removable(worker_id)
        worker = self.workers.get(worker_id)
        self.live_tasks.admit()
        note = audit(AuditNote("removed", actor), worker_id, clock.stamp(), "worker")
        done = self.live_tasks.write(Write(DELETE_WORKER, {"b_id": worker_id}), note)
        self.workers.forget(worker_id)
        await durable(done)
        return worker

    def given_to(self, worker_id: str) -> frozenset[str]:
        """Return the leases under which a worker must run a task, or may not have been told to."""
        return frozenset(
            held.lease.id
            for held in self.live_tasks.leases.values()
            if held.lease.worker_id == worker_id
            and (held.lease.id in self._untold or self._status(held.lease) is TaskStatus.RUNNING)
        )

    def believe(self, worker_id: str, running: Collection[str], given: Collection[str]) -> None:
        """Believe a worker that comes anew, or to a new term, about which tasks it runs.

        What was running there was killed with it; what an earlier term may not have told it goes back to the queue.
        `given` is what it had when it was asked: of later tasks it could not know.
        """
        for lease_id in given:
            held = self.live_tasks.leases.get(lease_id)
            task = self.live_tasks.tasks.get(held.lease.task_id) if held is not None else None
            if task is None or task.lease_id != lease_id:
                continue
            untold = lease_id in self._untold
            self._untold.discard(lease_id)
            if task.id in running and untold:
                self._change(task, machine.start(task), AuditNote("started", worker_id))
            elif task.id in running:
                continue
            elif task.status is TaskStatus.RUNNING:
                self.expire(lease_id)
            elif untold:
                after = machine.hand_back(task, reason=f"{worker_id} was not told of it")
                self._change(task, after, AuditNote("handed_back", "coordinator", after.reason))

    def _status(self, lease: Lease) -> TaskStatus | None:
        task = self.live_tasks.tasks.get(lease.task_id)
        return task.status if task is not None else None

    def silence(self, worker_id: str) -> None:
        """Take down that a worker said goodbye or was not heard of."""
        self.workers.lose(worker_id, WorkerStatus.OFFLINE, "not heard of")

    def reconcile(self, kept: Collection[str]) -> list[Lease]:
        """Return the leases that KV should have among `kept` and has not, younger ones than a round left out.

        One that was there when this term began and was not heard of since has expired: its marker was missed.
        """
        now = clock.now().timestamp()
        missing = [held for lease_id, held in self.live_tasks.leases.items() if lease_id not in kept]
        for held in missing:
            self.lapse(held.lease.id)
        return [
            held.lease
            for held in missing
            if not held.by_server and now - clock.parse(held.lease.started_at).timestamp() > ROUND
        ]

    def expire(self, lease_id: str) -> None:
        """End a lease whose time is up."""
        held = self.live_tasks.leases.get(lease_id)
        if held is None:
            return
        before = self.live_tasks.get(held.lease.task_id)
        after = machine.expire(before)
        note = AuditNote("expired", "coordinator", after.reason)
        self._change(before, after, note, lease=LeaseStatus.EXPIRED)

    def lapse(self, lease_id: str) -> None:
        """End a lease whose entry in KV has expired, unless it was heard of in this term: then its timer counts."""
        held = self.live_tasks.leases.get(lease_id)
        if held is not None and held.by_server:
            self.expire(lease_id)

    def hear(self, worker: Worker) -> None:
        """Take a worker's word of itself."""
        writes = self.workers.register(worker, clock.stamp())
        if writes:
            self.live_tasks.write(
                *writes, audit(AuditNote("registered", worker.id), worker.id, clock.stamp(), "worker")
            )
        if self.workers.hear(worker, asyncio.get_running_loop().time()):
            self.scheduler.schedule()

    def _change(
        self,
        before: TaskState,
        after: TaskState,
        note: AuditNote,
        *,
        lease: LeaseStatus = LeaseStatus.RELEASED,
        also: Sequence[Write] = (),
        earlier: Collection[str] = (),
    ) -> "asyncio.Future[None]":
        """Make a change, announce it when it is durable, and see what can run now."""
        done = self.live_tasks.change(before, after, note, lease=lease, also=also, earlier=earlier)
        self._in_background(partial(self.scheduler.tell, after, done))
        self.scheduler.schedule()
        return done

    def _fall_due(self, task_id: str) -> None:
        before = self.live_tasks.get(task_id)
        after = machine.fall_due(before)
        self._change(before, after, AuditNote("queued", "coordinator", "its wait is over"))

    def _lease_ended(self, lease: Lease, done: "asyncio.Future[None]") -> None:
        self._parts.pop(lease.id, None)
        self._untold.discard(lease.id)
        self._in_background(partial(self._let_go, lease, done))

    def _change_refused(self, task_id: str) -> None:
        # Not an errand: a book that could not be mended ends the term.
        self._group.create_task(self._reread(task_id), name="task read anew")

    async def _let_go(self, lease: Lease, done: "asyncio.Future[None]") -> None:
        await durable(done)
        await self._port.let_go(lease)

    async def _hold(self, lease: Lease, done: "asyncio.Future[None]") -> None:
        await durable(done)
        await self._port.hold(lease)

    async def _stop(self, lease: Lease, done: "asyncio.Future[None]") -> None:
        await durable(done)
        await self._port.stop(_claim(lease))

    def _output_of(self, report: Report) -> str | None:
        if not report.parts:
            return report.output
        parts = self._parts.get(report.lease_id, [])
        if len(parts) != report.parts:
            raise InvalidRequestError(f"{len(parts)} of {report.parts} parts of the output came", field="parts")
        return "".join(parts)

    async def _keep(self, report: Report, output: str, at: str) -> tuple[Artifact, list[Write]]:
        content = output.encode()
        # Said again after a lost answer it is the same object, and none is left over.
        artifact_id, key = str(uuid.uuid5(uuid.UUID(report.lease_id), "output")), None
        if len(content) > INLINE:
            key = f"artifacts/{report.task_id}/{artifact_id}"
            await self._port.store(key, content)
        artifact = Artifact(
            id=artifact_id, task_id=report.task_id, job_id=report.lease_id, created_at=at,
            content=output if key is None else None,
        )  # fmt: skip
        return artifact, [Write(INSERT_ARTIFACT, artifact_row(artifact, object_key=key))]

    def _in_background(self, work: BackgroundTask) -> None:
        self._group.create_task(_run(work))


async def _run(work: BackgroundTask) -> None:
    """Do what nobody waits for: KV entries and events follow the database, which is what counts."""
    try:
        await work()
    except MembridgeError as error:
        log.debug("background task failed", reason=error.message)


def _result(report: Report, output: str | None, artifact: Artifact | None, at: str) -> Result:
    inline = output if output is not None and (artifact is None or artifact.content is not None) else None
    return Result(
        id=str(uuid.uuid4()),
        task_id=report.task_id,
        worker_id=report.worker_id,
        artifact_id=artifact.id if artifact else None,
        status=report.status,
        output=inline,
        error_message=report.error_message,
        metrics=report.metrics,
        completed_at=at,
    )


def _claim(lease: Lease) -> LeaseClaim:
    return LeaseClaim(lease_id=lease.id, task_id=lease.task_id, worker_id=lease.worker_id)
