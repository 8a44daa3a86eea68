"""The gateway's requests to the task runtime, sent for the caller whose request it is."""

from typing import TypeVar

from membridge.aio.deadline import Deadline
from membridge.bus.connection import Bus
from membridge.bus.rpc import RpcClient
from membridge.errors import NoResponderError
from membridge.worker import report
from schemas import subjects
from schemas.gateway import CompleteTask
from schemas.leases import Report
from schemas.subjects import Operation
from schemas.wire import Wire
from services.web.routes import Call

Q = TypeVar("Q", bound=Wire)
R = TypeVar("R", bound=Wire)


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
        await report.send(
            Report(
                lease_id=done.lease_id,
                task_id=done.id,
                worker_id=done.worker_id,
                status=done.status,
                output=done.output,
                error_message=done.error_message,
                metrics=done.metrics,
                session=done.session,
            ),
            part=lambda part: self.ask(subjects.PART, part, call, worker=done.worker_id),
            end=lambda last: self.ask(subjects.REPORT, last, call, worker=done.worker_id),
        )
