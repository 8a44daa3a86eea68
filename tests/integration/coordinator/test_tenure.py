"""What a tenure survives and what ends it: unexpected errors, and workers that do not answer."""

import asyncio
from dataclasses import dataclass, replace
from typing import Any, ClassVar, TypeVar

import pytest

from membridge import __version__
from membridge.bus.rpc import RpcClient
from membridge.bus.service import ServiceIdentity, serve
from membridge.worker import report, worker
from membridge.worker.worker import AttemptResult
from schemas import subjects
from schemas.identity import NodeId
from schemas.leases import Lease, Order, OutputPart
from schemas.node import NodePresence
from schemas.subjects import Operation
from schemas.tasks import TaskRequest, TaskStatus
from schemas.wire import Wire, encode
from schemas.workers import Capabilities, WorkerPresence, WorkerStatus
from services.coordinator import app, tenure
from services.coordinator.adapter import Adapter
from services.coordinator.service import SERVICE
from tests.fixtures.tasks import SOON, OpenPlace, Place, echo, soon

Q = TypeVar("Q", bound=Wire)
R = TypeVar("R", bound=Wire)

#: More workers that do not answer than could be asked one after another while a test waits.
SILENT = 8


@dataclass(frozen=True, slots=True)
class Broken(Adapter):
    """An adapter that raises an unexpected error for the first lease."""

    async def hold(self, lease: Lease) -> None:
        """Write a lease to KV."""
        if not self.revisions:
            self.revisions["00000000-0000-4000-8000-000000000000"] = 0
            raise ZeroDivisionError
        await Adapter.hold(self, lease)


async def test_an_unknown_error_ends_the_tenure_and_not_the_process(opened: OpenPlace) -> None:
    ready, free = asyncio.Event(), asyncio.Event()

    async def slow(order: Order) -> AttemptResult:
        await free.wait()
        return await echo(order)

    async def coordinate(place: Place) -> None:
        identity = ServiceIdentity("membridge-runtime", __version__, "LLM tasks")
        async with app.resources_of(SERVICE, place.settings) as resources:
            adapter = Broken(
                resources.adapter.bus, resources.adapter.leases, resources.adapter.publisher, resources.adapter.objects
            )
            async with serve(resources.bus, identity, resources.endpoints.shared()):
                await tenure.contend(replace(resources, adapter=adapter), ready.set)

    async with opened() as place:
        place.tasks.append(place.group.create_task(coordinate(place)))
        await ready.wait()
        runner = await place.worker("w1", slow)
        await place.until_known("w1", WorkerStatus.ONLINE)
        first = await place.submit("first")
        # The tenure that leased it is over; the next one knows that it runs.
        second = await place.submit("second", "other")
        await place.until(second.id, TaskStatus.RUNNING)
        free.set()
        done = await place.until(first.id, TaskStatus.COMPLETED)
        assert (done.attempts, done.interruptions) == (1, 0)
        await place.until(second.id, TaskStatus.COMPLETED)
        assert [order.task.prompt for order in runner.orders] == ["first", "second"]


class Halting(RpcClient):
    """A worker's client that halts once at each of some points of a large report, until it is let go on."""

    points: ClassVar[set[str]] = set()
    reached: ClassVar[asyncio.Event]
    goes_on: ClassVar[asyncio.Event]

    async def request(self, op: Operation[Q, R], body: Q, **more: Any) -> R:
        point = f"part {body.index}" if isinstance(body, OutputPart) else op.name
        if point in self.points:
            self.points.discard(point)
            self.reached.set()
            await self.goes_on.wait()
        return await super().request(op, body, **more)


async def test_a_large_output_survives_a_term_that_begins_in_the_middle_of_its_report(
    opened: OpenPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = "".join(f"{number:07} " for number in range(3 * report.PIECE // 8))

    async def speak(order: Order) -> AttemptResult:
        return replace(await echo(order), output=output)

    monkeypatch.setattr(worker, "RpcClient", Halting)
    async with opened() as place:
        coordinator = await place.coordinator()
        await place.worker("w1", speak)
        for point in ("part 2", subjects.REPORT.name):
            Halting.points, Halting.reached, Halting.goes_on = {point}, asyncio.Event(), asyncio.Event()
            task = await place.submit(max_attempts=1)
            async with asyncio.timeout(SOON):
                await Halting.reached.wait()
            # Its tenure ends with it, and the parts that it received are gone.
            coordinator.cancel()
            await asyncio.wait({coordinator})
            coordinator = await place.coordinator()
            Halting.goes_on.set()
            done = await place.until(task.id, TaskStatus.COMPLETED, TaskStatus.DEAD)
            assert (done.status, done.attempts, done.reason) == (TaskStatus.COMPLETED, 1, ""), point
            reply = await RpcClient(place.bus).request(subjects.RESULT, TaskRequest(id=task.id), deadline=soon())
            assert reply.artifact is not None
            assert reply.artifact.content == output


async def test_workers_that_do_not_answer_keep_none_waiting_that_does(opened: OpenPlace) -> None:
    async with opened() as place, place.bus.subscribe(subjects.WORKER_STATUS.pattern()) as asked:
        await place.coordinator()
        await place.worker("w0", labels=("other",))
        await place.until_known("w0", WorkerStatus.ONLINE)
        for number in range(SILENT):
            name = NodeId("silent" if number == 0 else f"silent{number}")
            said = WorkerPresence(capabilities=Capabilities(claude_cli=True))
            presence = NodePresence(node=name, version="0", python="", os="", arch="", started_at="1", worker=said)
            await place.bus.publish(subjects.fill(subjects.WORKER_PRESENCE, worker=name), encode(presence))
        async with asyncio.timeout(SOON):
            await asked.next()
        await place.worker("w1", labels=("wanted",))
        task = await place.submit(labels=["wanted"])
        assert (await place.until(task.id, TaskStatus.COMPLETED)).worker_id == "w1"
