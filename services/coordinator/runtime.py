"""The requests of one tenure, in front of its shell: each is answered once what it changes is durable."""

import asyncio
import random
import secrets
import uuid
from collections.abc import Collection
from datetime import datetime

from msgspec.structs import replace

from membridge.bus.bulk import MOST_REQUEST
from membridge.errors import TooLargeError
from membridge.system import clock
from schemas.leases import Accepted, Lease, LeaseClaim, Leased, LeaseRequest, OutputPart, Report
from schemas.results import Artifact, ResultStatus
from schemas.tasks import Task, TaskSpec
from schemas.wire import encode
from schemas.workers import Registration, Worker
from services.coordinator.carrier import Carrier
from services.coordinator.engine.events import (
    Asked,
    Cancelled,
    Drained,
    Event,
    HandedBack,
    Introduced,
    Removed,
    Renewed,
    Reported,
    Requeued,
    Submitted,
)
from services.coordinator.engine.ids import ordered_id
from services.coordinator.engine.state import Limits, State
from services.coordinator.engine.step import claimed
from services.coordinator.lookups import Lookups, instant
from services.coordinator.outputs import Outputs, artifact_of, is_large
from services.coordinator.port import Port
from services.coordinator.shell import Shell
from services.coordinator.store.queries import Queries, new_task
from services.database.group_commit import GroupCommit

#: Bytes of an order beside its task.
ENVELOPE = 4 << 10
#: Bytes of a prompt that fits into an order in whatever way JSON escapes it.
LONG = MOST_REQUEST // 8
#: The UUID namespace of leases that were asked for with a nonce.
NAMESPACE = uuid.UUID("5b0e7a34-6f0c-4a53-9d6e-3f1c1f7f8f0a")


class Runtime:
    """One tenure, loaded from the database when it begins; its background tasks run in `group`."""

    def __init__(
        self, group: asyncio.TaskGroup, group_commit: GroupCommit, queries: Queries, port: Port, limits: Limits
    ) -> None:
        self._state, self._limits = State(limits, secrets.token_bytes(32)), limits
        self._outputs = Outputs(port, limits.max_output_bytes)
        self._lookups = Lookups(self._state, queries)
        self._carrier = Carrier(group, port, queries, self._outputs, self.post)
        self._shell = Shell(self._state, group_commit, look_ups=self._lookups, carry=self._carrier.carry)

    async def load(self, kept: Collection[str] = ()) -> None:
        """Load live tasks and active leases from the database.

        A lease in `kept` is still in KV, so by the server's clock it has not expired; its entry decides when it does.
        """
        await self._shell.begin(await self._lookups.load(kept))

    async def run(self) -> None:
        """Apply events until cancelled; raise what ended the tenure."""
        await self._shell.run()

    def close(self) -> None:
        """Stop all timers of this tenure."""
        self._carrier.close()

    def post(self, event: Event) -> None:
        """Take an event that nobody waits for."""
        self._shell.post(event)

    async def settled(self) -> State:
        """Return the state, to be read before the next await: it is what the database has."""
        return await self._shell.settled()

    def submit(self, spec: TaskSpec, *, actor: str) -> asyncio.Future[Task]:
        """Add a task; a repeated `idempotency_key` returns the first task.

        Errors: TooLargeError, InvalidRequestError for an invalid time, OverloadedError.
        """
        size, most = len(spec.prompt.encode()), self._limits.max_prompt_bytes
        if size > most:
            raise TooLargeError(
                f"the prompt has {size:,} bytes, at most {most:,} are allowed",
                remedy="shorten it, or name files for the worker to read: `--hint`, `context_hints`",
                field="prompt",
            )
        not_before = instant(spec.not_before)
        at = clock.now()
        task = new_task(spec, _new_id(at), at=clock.stamp(at))
        if size > LONG and (whole := len(encode(task))) > MOST_REQUEST - ENVELOPE:
            raise TooLargeError(
                f"the prompt is too large: its task has {whole:,} bytes, at most {MOST_REQUEST - ENVELOPE:,} fit",
                field="prompt",
            )
        return self._shell.ask(Submitted(task=task, not_before=not_before, actor=actor))

    def cancel(self, task_id: str, *, reason: str, actor: str) -> asyncio.Future[Task]:
        """End a live task, and stop the worker that runs it. Errors: NotFoundError, WrongStateError."""
        return self._shell.ask(Cancelled(task_id=task_id, reason=reason, actor=actor))

    def requeue(self, task_id: str, *, actor: str) -> asyncio.Future[Task]:
        """Queue a failed or dead task again, at its old place. Errors: NotFoundError, WrongStateError."""
        return self._shell.ask(Requeued(task_id=task_id, actor=actor))

    def register(self, registration: Registration) -> asyncio.Future[Worker]:
        """Register a worker that will ask for tasks. Raises ConflictError for a node's worker."""
        return self._shell.ask(Introduced(registration))

    def lease(self, request: LeaseRequest) -> asyncio.Future[Leased]:
        """Lease a task to a worker that asks, if there is one for it. Errors: those of `placing.asked`."""
        name = f"{request.worker_id} {request.nonce}"
        lease_id = str(uuid.uuid5(NAMESPACE, name)) if request.nonce else _new_id(clock.now())
        return self._shell.ask(Asked(request=request, lease_id=lease_id))

    def heartbeat(self, claim: LeaseClaim) -> asyncio.Future[Lease]:
        """Renew a lease. Raises LeaseLostError when it is not the active one."""
        return self._shell.ask(Renewed(claim))

    async def take_part(self, part: OutputPart) -> Accepted:
        """Keep a part of a large output. Errors: LeaseLostError, TooLargeError, InvalidRequestError."""
        claimed(await self.settled(), part)
        self._outputs.add(part)
        return Accepted(accepted=True)

    async def report(self, report: Report) -> Accepted:
        """Accept the result of an attempt. Errors: LeaseLostError, InvalidRequestError with the field, the store's."""
        if (answer := self.report_short(report)) is not None:
            return await answer
        claimed(await self.settled(), report)
        output = self._outputs.whole(report) or ""
        report = replace(report, output=output, parts=0)
        if (answer := self.report_short(report)) is not None:
            return await answer
        artifact = artifact_of(report, None)
        key = await self._outputs.keep(artifact, output)
        return await self._shell.ask(_reported(report, artifact, key))

    def report_short(self, report: Report) -> asyncio.Future[Accepted] | None:
        """Accept the result of an attempt whose output its row can hold; None for another one."""
        if report.parts:
            return None
        if report.status is not ResultStatus.SUCCESS or report.output is None:
            return self._shell.ask(_reported(report))
        if is_large(report.output):
            return None
        return self._shell.ask(_reported(report, artifact_of(report, report.output)))

    def hand_back(self, claim: LeaseClaim) -> asyncio.Future[Accepted]:
        """Queue a task again that its worker returns because it stops. Raises LeaseLostError."""
        return self._shell.ask(HandedBack(claim))

    def drain(self, worker_id: str, *, drained: bool, actor: str) -> asyncio.Future[Worker]:
        """Give a worker no new tasks, or give them again. Raises NotFoundError."""
        return self._shell.ask(Drained(worker_id=worker_id, drained=drained, actor=actor))

    def remove_worker(self, worker_id: str, *, actor: str) -> asyncio.Future[Worker]:
        """Forget an offline worker; if it comes back it is new. Errors: NotFoundError, RefusedError."""
        return self._shell.ask(Removed(worker_id=worker_id, actor=actor))


def _reported(report: Report, artifact: Artifact | None = None, object_key: str | None = None) -> Reported:
    chance = random.random()  # noqa: S311 - jitter
    return Reported(
        report=report, result_id=_new_id(clock.now()), chance=chance, artifact=artifact, object_key=object_key
    )


def _new_id(at: datetime) -> str:
    return ordered_id(at.timestamp(), secrets.token_bytes(10))
