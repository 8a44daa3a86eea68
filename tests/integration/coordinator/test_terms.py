"""What a term outlives and what ends it: errors that nobody foresaw, and workers that do not answer."""

import asyncio
from dataclasses import dataclass, replace

from membridge import __version__
from membridge.bus.service import ServiceIdentity, serve
from membridge.worker.worker import Outcome
from schemas import subjects
from schemas.identity import NodeId
from schemas.node import NodePresence
from schemas.runtime import Capabilities, Lease, Order, TaskStatus, WorkerPresence, WorkerStatus
from schemas.wire import encode
from services.coordinator import app, term
from services.coordinator.world import World
from tests.fixtures.tasks import SOON, OpenPlace, Place, echo

#: More workers that do not answer than could be asked one after another while a test waits.
SILENT = 8


@dataclass(frozen=True, slots=True)
class Broken(World):
    """A world in which the first lease raises what nobody foresaw."""

    async def hold(self, lease: Lease) -> None:
        """Write a lease to KV."""
        if not self.revisions:
            self.revisions["00000000-0000-4000-8000-000000000000"] = 0
            raise ZeroDivisionError
        await World.hold(self, lease)


async def test_an_unknown_error_ends_the_term_and_not_the_process(opened: OpenPlace) -> None:
    ready, free = asyncio.Event(), asyncio.Event()

    async def slow(order: Order) -> Outcome:
        await free.wait()
        return await echo(order)

    async def coordinate(place: Place) -> None:
        identity = ServiceIdentity("membridge-runtime", __version__, "LLM tasks")
        async with app.opened(place.settings) as seat:
            world = Broken(seat.world.bus, seat.world.leases, seat.world.sticky, seat.world.objects)
            async with serve(seat.bus, identity, seat.answers.shared()):
                await term.contend(replace(seat, world=world), ready.set)

    async with opened() as place:
        place.tasks.append(place.group.create_task(coordinate(place)))
        await ready.wait()
        worker = await place.worker("w1", slow)
        await place.until_known("w1", WorkerStatus.ONLINE)
        first = await place.submit("first")
        # The term that gave it out is over; another one answers, and knows that it runs.
        second = await place.submit("second", "other")
        await place.until(second.id, TaskStatus.RUNNING)
        free.set()
        done = await place.until(first.id, TaskStatus.COMPLETED)
        assert (done.attempts, done.interruptions) == (1, 0)
        await place.until(second.id, TaskStatus.COMPLETED)
        assert [order.task.prompt for order in worker.orders] == ["first", "second"]


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
