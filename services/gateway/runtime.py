"""The gateway's requests to the task runtime, sent for the caller whose request it is."""

from typing import TypeVar

from membridge.aio.deadline import Deadline
from membridge.bus.connection import Bus
from membridge.bus.rpc import RpcClient
from membridge.errors import NoResponderError, RemoteError
from schemas import subjects
from schemas.gateway import CompleteTask
from schemas.leases import OutputPart, Report
from schemas.subjects import Operation
from schemas.wire import Wire
from services.web.routes import Call

Q = TypeVar("Q", bound=Wire)
R = TypeVar("R", bound=Wire)

#: Characters of an output that one message holds however JSON escapes them, and of a part of a longer one.
PIECE = 65_536


class Runtime:
    """Asks a coordinator."""

    def __init__(self, bus: Bus) -> None:
        self.bus = bus

    async def ask(self, operation: Operation[Q, R], request: Q, call: Call, **tokens: str) -> R:
        """Return a coordinator's answer. Errors: those of RpcClient, NoResponderError while none runs."""
        return await self.ask_within(operation, request, call, deadline=call.deadline, **tokens)

    async def ask_within(
        self, operation: Operation[Q, R], request: Q, call: Call, *, deadline: Deadline, **tokens: str
    ) -> R:
        """Do the same, for at most until a deadline."""
        client = RpcClient(self.bus, on_behalf_of=f"{call.identity.actor}@{subjects.GATEWAY}")
        try:
            return await client.request(operation, request, deadline=deadline, **tokens)
        except NoResponderError as error:
            raise NoResponderError(
                "no coordinator answers: tasks need one",
                remedy="start one with `membridge coordinator`, or `membridge up` with MEMBRIDGE_COORDINATOR=1",
            ) from error

    async def complete(self, done: CompleteTask, call: Call) -> None:
        """Report the end of an attempt, its output in parts where it is long. Errors: those of `ask`."""
        try:
            await self._send(done, call)
        except RemoteError as error:
            # A coordinator that began to schedule meanwhile has none of the parts.
            if error.field not in {"index", "parts"}:
                raise
            await self._send(done, call)

    async def _send(self, done: CompleteTask, call: Call) -> None:
        output = done.output or ""
        pieces = [output[at : at + PIECE] for at in range(0, len(output), PIECE)] if len(output) > PIECE else []
        for index, text in enumerate(pieces):
            part = OutputPart(lease_id=done.lease_id, task_id=done.id, worker_id=done.worker_id, index=index, text=text)
            await self.ask(subjects.PART, part, call, worker=done.worker_id)
        report = Report(
            lease_id=done.lease_id,
            task_id=done.id,
            worker_id=done.worker_id,
            status=done.status,
            output=None if pieces else done.output,
            error_message=done.error_message,
            metrics=done.metrics,
            parts=len(pieces),
            session=done.session,
        )
        await self.ask(subjects.REPORT, report, call, worker=done.worker_id)
