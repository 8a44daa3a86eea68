"""The requests of one tenure: submit, cancel, requeue, and the reports of workers under their leases.

Each is answered once its change is durable. A report counts under the active lease only; a late or repeated one is
rejected and changes nothing. Live tasks are checked and changed without an await in between. Requests that must ask the
database first (a task that ended, an idempotency key) hold a lock of that task or key meanwhile.
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

#: Bytes of an output that is kept in its row; a larger one becomes an object.
INLINE = 64 << 10
#: Characters of an error that become the task's reason; its result has the whole error.
REASON = 4_000
#: Bytes of an order beside its task.
ENVELOPE = 4 << 10
#: Seconds without a presence message after which a worker counts as offline.
SILENCE = 30.0
#: Seconds between two checks for silent workers and for differences with KV.
ROUND = 15.0


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits that the settings give."""

    max_prompt_bytes: int = 1 << 20
    max_output_bytes: int = 8 << 20
    lease_seconds: int = 300
    #: Seconds by which a lease outlives its task's timeout.
    margin_seconds: int = 30
    #: Tasks of one context run one at a time, in order.
    serial: bool = True

    def lease_of(self, timeout_sec: int) -> int:
        """Return the seconds that the lease of a task with this timeout lives."""
        return max(self.lease_seconds, timeout_sec + self.margin_seconds)


class Runtime:
    """One tenure, loaded from the database when it begins; its background tasks run in `group`."""

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
        #: Tasks by idempotency key, until their submission is durable.
        self._keys: dict[str, tuple[Task, asyncio.Future[None]]] = {}
        self._parts: dict[str, list[str]] = {}
        #: Leases of an earlier tenure whose workers have not confirmed yet that they took the task.
        self._untold: set[str] = set()

    async def load(self, sticky: dict[str, tuple[str, str | None]], kept: Collection[str] = ()) -> None:
        """Load live tasks and active leases from the database.

        A lease in `kept` is still in KV, so by the server's clock it has not expired; `lapse` ends it when it does.
        """
        self._untold = await loading.load(self.live_tasks, self.queries, kept)
        self.scheduler.load(sticky)
        self.scheduler.schedule()

    def close(self) -> None:
        """Stop all timers of this tenure."""
        self._timers.close()

    async def submit(self, spec: TaskSpec, *, actor: str) -> Task:
        """Add a task; a repeated `idempotency_key` returns the first task.

        Errors: TooLargeError, InvalidRequestError for an invalid time, OverloadedError.
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
        if (whole := len(encode(task))) > MOST_REQUEST - ENVELOPE:
            raise TooLargeError(
                f"the prompt is too large: its task has {whole:,} bytes, at most {MOST_REQUEST - ENVELOPE:,} fit",
                field="prompt",
            )
        self.live_tasks.admit()
        done = self.live_tasks.create(task, actor=actor)
        if (key := spec.idempotency_key) is not None:
            # By callback: the request may be cancelled before this is durable.
            self._keys[key] = task, done
            done.add_done_callback(lambda _: self._keys.pop(key))
        self.scheduler.remember(task)
        self._in_background(partial(self.scheduler.tell, state_of(task), done))
        self.scheduler.schedule()
        await durable(done)
        return task

    async def cancel(self, task_id: str, *, reason: str, actor: str) -> Task:
        """End a live task, and stop the worker that runs it. Errors: NotFoundError, WrongStateError."""
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
        """Queue a failed or dead task again, at its old place. Errors: NotFoundError, WrongStateError."""
        async with self._locks.of(task_id):
            before = await self._state(task_id)
            after = machine.requeue(before)
            self.live_tasks.admit()
            earlier = [] if task_id in self.live_tasks.tasks else await self.queries.earlier(task_id, machine.LIVE)
            done = self._change(before, after, AuditNote("requeued", actor), earlier=earlier)
        await self._stored(task_id, done)
        return await self.queries.task(task_id)

    async def _state(self, task_id: str) -> TaskState:
        """Return a task from the live tasks or, once it ended, from the database. Raises NotFoundError.

        The caller holds the task's lock, so no other request revives it.
        """
        if task_id not in self.live_tasks.tasks:
            await self.live_tasks.settled(task_id)
        return self.live_tasks.tasks.get(task_id) or state_of(await self.queries.task(task_id))

    async def _stored(self, task_id: str, done: "asyncio.Future[None]") -> None:
        """Wait until a change is durable; after one that the database rejected, until the task is read again."""
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
        """Renew a lease. Raises LeaseLostError when it is not the active one."""
        _, held = self.live_tasks.claimed(claim)
        self.live_tasks.admit()
        self.workers.speak(claim.worker_id, asyncio.get_running_loop().time(), clock.stamp())
        done = self.live_tasks.renew(held)
        lease = held.lease
        self._in_background(partial(self._hold, lease, done))
        await durable(done)
        return lease

    async def take_part(self, part: OutputPart) -> Accepted:
        """Keep a part of a large output. Errors: LeaseLostError, TooLargeError, InvalidRequestError."""
        self.live_tasks.claimed(part)
        parts = self._parts.setdefault(part.lease_id, [])
        if part.index < len(parts):
            return Accepted(accepted=True)
        if part.index > len(parts):
            raise InvalidRequestError(f"expected part {len(parts)} of the output, got part {part.index}", field="index")
        if sum(map(len, parts)) + len(part.text) > self._limits.max_output_bytes:
            raise TooLargeError(f"the output is too large: at most {self._limits.max_output_bytes:,} bytes are allowed")
        parts.append(part.text)
        return Accepted(accepted=True)

    async def report(self, report: Report) -> Accepted:
        """Accept the result of an attempt. Errors: LeaseLostError, InvalidRequestError with the field, the store's."""
        self.live_tasks.claimed(report)
        output = self._output_of(report)
        if report.status is ResultStatus.SUCCESS and output is None:
            raise InvalidRequestError("a success needs an output", field="output")
        if report.status is ResultStatus.ERROR and not report.error_message:
            raise InvalidRequestError("an error needs a message", field="error_message")
        at, artifact, also = clock.stamp(), None, list[Write]()
        if output is not None and report.status is ResultStatus.SUCCESS:
            artifact, also = await self._keep(report, output, at)
        # The lease may have ended during the await.
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
        """Queue a task again that its worker returns because it stops. Raises LeaseLostError."""
        before, _ = self.live_tasks.claimed(claim)
        after = machine.hand_back(before, reason=claim.reason or "handed back")
        self.live_tasks.admit()
        done = self._change(before, after, AuditNote("handed_back", claim.worker_id, after.reason))
        # It is stopping: no more tasks until its next presence message.
        self.workers.lose(claim.worker_id, WorkerStatus.SYNCING, after.reason)
        await durable(done)
        return Accepted(accepted=True)

    async def drain(self, worker_id: str, *, drained: bool, actor: str) -> Worker:
        """Give a worker no new tasks, or give them again. Raises NotFoundError."""
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
        """Forget an offline worker; if it comes back it is new. Errors: NotFoundError, RefusedError."""
        self.workers.check_removable(worker_id)
        worker = self.workers.get(worker_id)
        self.live_tasks.admit()
        note = audit(AuditNote("removed", actor), worker_id, clock.stamp(), "worker")
        done = self.live_tasks.write(Write(DELETE_WORKER, {"b_id": worker_id}), note)
        self.workers.forget(worker_id)
        await durable(done)
        return worker

    def given_to(self, worker_id: str) -> frozenset[str]:
        """Return the leases whose tasks this worker should run, or may never have received."""
        return frozenset(
            held.lease.id
            for held in self.live_tasks.leases.values()
            if held.lease.worker_id == worker_id
            and (held.lease.id in self._untold or self._status(held.lease) is TaskStatus.RUNNING)
        )

    def believe(self, worker_id: str, running: Collection[str], given: Collection[str]) -> None:
        """Reconcile the leases of a worker that started again, or that is new to this tenure, with what it runs.

        A task that should run there and does not was killed with the worker. A task that it may never have received
        goes back to the queue. `given` are its leases when it was asked: it cannot know of later ones.
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
                after = machine.hand_back(task, reason=f"{worker_id} never received it")
                self._change(task, after, AuditNote("handed_back", "coordinator", after.reason))

    def _status(self, lease: Lease) -> TaskStatus | None:
        task = self.live_tasks.tasks.get(lease.task_id)
        return task.status if task is not None else None

    def silence(self, worker_id: str) -> None:
        """Mark a worker as offline: it said goodbye, or sent no presence message for a while."""
        self.workers.lose(worker_id, WorkerStatus.OFFLINE, "not heard of")

    def reconcile(self, kept: Collection[str]) -> list[Lease]:
        """Return the leases that are missing in KV, except those younger than a round; `kept` are the keys there.

        A missing lease that was there when this tenure began and was not renewed since has expired: it is ended.
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
        """End a lease that expired."""
        held = self.live_tasks.leases.get(lease_id)
        if held is None:
            return
        before = self.live_tasks.get(held.lease.task_id)
        after = machine.expire(before)
        note = AuditNote("expired", "coordinator", after.reason)
        self._change(before, after, note, lease=LeaseStatus.EXPIRED)

    def lapse(self, lease_id: str) -> None:
        """End a lease whose entry in KV expired, unless this tenure renewed it: then its timer decides."""
        held = self.live_tasks.leases.get(lease_id)
        if held is not None and held.by_server:
            self.expire(lease_id)

    def hear(self, worker: Worker) -> None:
        """Take in the presence of a worker."""
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
        """Make a change, publish it once it is durable, and schedule what can run now."""
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
        # Not in the background: a failure to read the task again must end the tenure.
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
            raise InvalidRequestError(f"only {len(parts)} of {report.parts} parts of the output arrived", field="parts")
        return "".join(parts)

    async def _keep(self, report: Report, output: str, at: str) -> tuple[Artifact, list[Write]]:
        content = output.encode()
        # A report repeated after a lost answer writes the same object, so none is left over.
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
    """Run a background task: KV entries and events follow the database, which alone decides."""
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
