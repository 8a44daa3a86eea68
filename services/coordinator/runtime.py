"""What may be asked of a term: submit, cancel, requeue, and what workers say under their leases.

Every answer is given when it is durable. A worker's word counts under the live lease only; what comes late or twice is
refused and changes nothing.
"""

import asyncio
import random
import uuid
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from membridge.errors import InvalidRequestError, MembridgeError, TooLargeError
from membridge.logging import get_logger
from schemas.runtime import (
    Accepted,
    Artifact,
    Lease,
    LeaseClaim,
    LeaseStatus,
    OutputPart,
    Report,
    Result,
    ResultStatus,
    Task,
    TaskSpec,
    TaskStatus,
    Worker,
    WorkerStatus,
)
from schemas.wire import MAX_BODY_BYTES, encode
from services.coordinator import machine
from services.coordinator.book import Book, Listeners, Said, audit, stamp, state_of
from services.coordinator.fleet import Fleet
from services.coordinator.machine import TaskState
from services.coordinator.outside import Outside
from services.coordinator.scheduler import Errand, Scheduler
from services.coordinator.timers import Timers
from services.database.ledger import Ledger
from services.database.records import Records, artifact_row, new_task, result_row
from services.database.statements import INSERT_ARTIFACT, INSERT_RESULT, Write

log = get_logger("membridge.coordinator")

#: Bytes of an output that stays in its row; what is larger is an object.
INLINE = 64 << 10
#: Bytes that an order has beside its task.
ORDER = 4 << 10
#: Seconds without a word after which a worker counts as gone.
SILENCE = 30.0
#: Seconds between two comparisons with KV, and with the clock.
ROUND = 15.0
#: Live tasks that are read at once when a term begins.
PAGE = 2_000


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
        self, group: asyncio.TaskGroup, ledger: Ledger, records: Records, fleet: Fleet, outside: Outside, limits: Limits
    ) -> None:
        self._group, self._outside, self._limits = group, outside, limits
        self.records, self.fleet = records, fleet
        self._timers = Timers()
        listeners = Listeners(ended=self._lease_ended, expired=self.expire, due=self._fall_due)
        self.book = Book(ledger, fleet, self._timers, listeners, serial=limits.serial)
        self.scheduler = Scheduler(self.book, fleet, outside, records, self._timers, self._errand, limits.lease_of)
        self._keys: dict[str, tuple[Task, asyncio.Future[None]]] = {}
        self._parts: dict[str, list[str]] = {}
        #: Leases of an earlier term whose workers had not said yet that they took the task.
        self._untold: set[str] = set()

    async def load(self, sticky: dict[str, tuple[str, str | None]], kept: Collection[str] = ()) -> None:
        """Take up what the database says: tasks, and leases with the time they have left.

        A lease that is `kept` in KV has not expired by the server's clock, and will say so when it does (`lapse`).
        """
        leases = {lease.id: lease for lease in await self.records.active_leases()}
        after, more = 0, True
        while more:
            found = await self.records.live([*machine.LIVE], after=after, limit=PAGE)
            for seq, task in found:
                after = seq
                lease = leases.pop(task.lease_id or "", None)
                self.book.load(state_of(task, seq=seq))
                if lease is not None:
                    left = float(lease.ttl_seconds) if lease.id in kept else _remaining(lease)
                    self.book.load_lease(lease, left, by_server=lease.id in kept)
                    if task.status is TaskStatus.LEASED:
                        self._untold.add(lease.id)
                elif task.status in machine.HELD:
                    before = self.book.live(task.id)
                    after_it = machine.expire(before)
                    self.book.change(before, after_it, Said("expired", "coordinator", "it had no lease"))
            more = len(found) == PAGE
        for lease in leases.values():
            self.book.end_orphan(lease)
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
            raise TooLargeError(f"the prompt has {size} bytes, more than {most}", field="prompt")
        key = spec.idempotency_key
        if key is not None and (known := self._keys.get(key)) is None:
            earlier = await self.records.task_of_key(key)
            if earlier is not None:
                return earlier
        if key is not None and (known := self._keys.get(key)) is not None:
            await asyncio.wait({known[1]})
            known[1].result()
            return known[0]
        task = new_task(spec, str(uuid.uuid4()), at=stamp())
        if len(encode(task)) > MAX_BODY_BYTES - ORDER:
            raise TooLargeError("the task is too large for one message to its worker", field="prompt")
        done = self.book.create(task, actor=actor)
        if key is not None:
            self._keys[key] = task, done
            done.add_done_callback(lambda _: self._keys.pop(key))
        self.scheduler.remember(task)
        self._errand(partial(self.scheduler.tell, state_of(task), done))
        self.scheduler.schedule()
        await done
        return task

    async def cancel(self, task_id: str, *, reason: str, actor: str) -> Task:
        """End a live task; a worker that has it is told to stop. Errors: NotFoundError, WrongStateError."""
        before = self.book.tasks.get(task_id) or state_of(await self.records.task(task_id))
        after = machine.cancel(before, reason=reason or "cancelled")
        held = self.book.leases.get(before.lease_id or "")
        done = self._change(before, after, Said("cancelled", actor, after.reason))
        if held is not None:
            self._errand(partial(self._outside.stop, _claim(held.lease)))
        await done
        return await self.records.task(task_id)

    async def requeue(self, task_id: str, *, actor: str) -> Task:
        """Revive a failed or dead task. Errors: NotFoundError, WrongStateError."""
        before = self.book.tasks.get(task_id)
        if before is None:
            before = state_of(await self.records.task(task_id))
        after = machine.requeue(before)
        done = self._change(before, after, Said("requeued", actor))
        await done
        return await self.records.task(task_id)

    async def heartbeat(self, claim: LeaseClaim) -> Lease:
        """Let a lease live on. Raises LeaseLostError when it is not the live one."""
        _, held = self.book.claimed(claim)
        done = self.book.renew(held)
        self._errand(partial(self._outside.hold, held.lease))
        await done
        return held.lease

    async def take_part(self, part: OutputPart) -> Accepted:
        """Keep a piece of a large output until its report. Errors: LeaseLostError, TooLargeError, one out of order."""
        self.book.claimed(part)
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
        self.book.claimed(report)
        output = self._output_of(report)
        if report.status is ResultStatus.SUCCESS and output is None:
            raise InvalidRequestError("a success needs an output", field="output")
        if report.status is ResultStatus.ERROR and not report.error_message:
            raise InvalidRequestError("an error needs a message", field="error_message")
        at, artifact, also = stamp(), None, list[Write]()
        if output is not None and report.status is ResultStatus.SUCCESS:
            artifact, also = await self._keep(report, output, at)
        # What was awaited may have taken the lease away.
        before, _ = self.book.claimed(report)
        also.append(Write(INSERT_RESULT, result_row(_result(report, output, artifact, at), lease_id=report.lease_id)))
        if report.status is ResultStatus.SUCCESS:
            after = machine.complete(before)
            done = self._change(before, after, Said("completed", report.worker_id), also=also)
        else:
            message = (report.error_message or "").strip()
            after = machine.fail(before, reason=message, now=datetime.now(UTC).timestamp(), chance=random.random())  # noqa: S311 - jitter
            said = Said("failed", report.worker_id, message[:500])
            done = self._change(before, after, said, lease=LeaseStatus.FAILED, also=also)
        self._parts.pop(report.lease_id, None)
        self.scheduler.stick(before.context_id, report.worker_id, report.session)
        await done
        return Accepted(accepted=True)

    async def hand_back(self, claim: LeaseClaim) -> Accepted:
        """Take a task back from a worker that stops. Raises LeaseLostError."""
        before, _ = self.book.claimed(claim)
        after = machine.hand_back(before, reason=claim.reason or "handed back")
        # It stops: nothing more for it until it is heard of again.
        self.fleet.lose(claim.worker_id, WorkerStatus.SYNCING, after.reason)
        done = self._change(before, after, Said("handed_back", claim.worker_id, after.reason))
        await done
        return Accepted(accepted=True)

    async def drain(self, worker_id: str, *, drained: bool, actor: str) -> Worker:
        """Let a worker have no new tasks, or have them again. Raises NotFoundError."""
        worker = self.fleet.worker(worker_id)
        self.fleet.drain(worker_id, drained=drained)
        said = Said("drained" if drained else "resumed", actor)
        await self.book.write(*self.fleet.writes(worker, drained=drained), audit(said, worker_id, stamp(), "worker"))
        self.scheduler.schedule()
        return self.fleet.worker(worker_id)

    def believe(self, worker_id: str, running: Collection[str]) -> None:
        """Believe a worker that comes anew, or to a new term, about which tasks it runs.

        What was running there was killed with it; what an earlier term may not have told it goes back to the queue.
        """
        for lease_id, held in list(self.book.leases.items()):
            task = self.book.tasks.get(held.lease.task_id)
            if task is None or held.lease.worker_id != worker_id:
                continue
            untold = lease_id in self._untold
            self._untold.discard(lease_id)
            if task.id in running and untold:
                self._change(task, machine.start(task), Said("started", worker_id))
            elif task.id in running:
                continue
            elif task.status is TaskStatus.RUNNING:
                self.expire(lease_id)
            elif untold:
                after = machine.hand_back(task, reason=f"{worker_id} was not told of it")
                self._change(task, after, Said("handed_back", "coordinator", after.reason))

    def silence(self, worker_id: str) -> None:
        """Take down that a worker said goodbye or was not heard of."""
        self.fleet.lose(worker_id, WorkerStatus.OFFLINE, "not heard of")

    def reconcile(self, kept: Collection[str]) -> list[Lease]:
        """Return the leases that KV should have among `kept` and has not, younger ones than a round left out.

        One that was there when this term began and was not heard of since has expired: its marker was missed.
        """
        now = datetime.now(UTC).timestamp()
        missing = [held for lease_id, held in self.book.leases.items() if lease_id not in kept]
        for held in missing:
            self.lapse(held.lease.id)
        return [
            held.lease
            for held in missing
            if not held.by_server and now - datetime.fromisoformat(held.lease.started_at).timestamp() > ROUND
        ]

    def expire(self, lease_id: str) -> None:
        """End a lease whose time is up."""
        held = self.book.leases.get(lease_id)
        if held is None:
            return
        before = self.book.live(held.lease.task_id)
        after = machine.expire(before)
        self._change(before, after, Said("expired", "coordinator", after.reason), lease=LeaseStatus.EXPIRED)
        self._parts.pop(lease_id, None)

    def lapse(self, lease_id: str) -> None:
        """End a lease whose entry in KV has expired, unless it was heard of in this term: then its timer counts."""
        held = self.book.leases.get(lease_id)
        if held is not None and held.by_server:
            self.expire(lease_id)

    def hear(self, worker: Worker) -> None:
        """Take a worker's word of itself."""
        writes = self.fleet.register(worker, stamp())
        if writes:
            self.book.write(*writes, audit(Said("registered", worker.id), worker.id, stamp(), "worker"))
        if self.fleet.hear(worker, asyncio.get_running_loop().time()):
            self.scheduler.schedule()

    def _change(
        self, before: TaskState, after: TaskState, said: Said, *, lease: LeaseStatus = LeaseStatus.RELEASED,
        also: Sequence[Write] = (),
    ) -> "asyncio.Future[None]":  # fmt: skip
        """Make a change, announce it when it is durable, and see what can run now."""
        done = self.book.change(before, after, said, lease=lease, also=also)
        self._errand(partial(self.scheduler.tell, after, done))
        self.scheduler.schedule()
        return done

    def _fall_due(self, task_id: str) -> None:
        before = self.book.live(task_id)
        after = machine.fall_due(before)
        self._change(before, after, Said("queued", "coordinator", "its wait is over"))

    def _lease_ended(self, lease: Lease) -> None:
        self._errand(partial(self._outside.let_go, lease))

    def _output_of(self, report: Report) -> str | None:
        if not report.parts:
            return report.output
        parts = self._parts.get(report.lease_id, [])
        if len(parts) != report.parts:
            raise InvalidRequestError(f"{len(parts)} of {report.parts} parts of the output came", field="parts")
        return "".join(parts)

    async def _keep(self, report: Report, output: str, at: str) -> tuple[Artifact, list[Write]]:
        content = output.encode()
        artifact_id, key = str(uuid.uuid4()), None
        if len(content) > INLINE:
            key = f"artifacts/{report.task_id}/{artifact_id}"
            await self._outside.store(key, content)
        artifact = Artifact(
            id=artifact_id, task_id=report.task_id, job_id=report.lease_id, created_at=at,
            content=output if key is None else None,
        )  # fmt: skip
        return artifact, [Write(INSERT_ARTIFACT, artifact_row(artifact, object_key=key))]

    def _errand(self, work: Errand) -> None:
        self._group.create_task(_run(work))


async def _run(work: Errand) -> None:
    """Do what nobody waits for: KV entries and events follow the database, which is what counts."""
    try:
        await work()
    except MembridgeError as error:
        log.debug("errand failed", reason=error.message)


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


def _remaining(lease: Lease) -> float:
    """Return the seconds that a lease of the database has left, by a wall clock that may have jumped."""
    left = datetime.fromisoformat(lease.expires_at).timestamp() - datetime.now(UTC).timestamp()
    return min(float(lease.ttl_seconds), max(0.0, left))
