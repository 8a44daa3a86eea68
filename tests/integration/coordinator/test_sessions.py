"""Which worker knows a context, and by what session, is in the database alone: no coordinator needs KV for it."""

import asyncio
import json

from membridge.worker.worker import AttemptResult
from schemas.leases import Order
from schemas.tasks import TaskStatus
from schemas.workers import WorkerStatus
from tests.fixtures.tasks import SOON, OpenPlace, echo, soon

CONTEXTS = 4


async def test_a_context_stays_with_its_worker_and_session_when_another_coordinator_schedules(
    opened: OpenPlace,
) -> None:
    async def speak(order: Order) -> AttemptResult:
        outcome = await echo(order)
        # The last one says none: the session that is known stays.
        session = None if order.task.prompt == "two" else f"session of {order.task.context_id}"
        return AttemptResult(outcome.status, outcome.metrics, output=outcome.output, session=session)

    async with opened() as place, place.bus.subscribe("$KV.>", bound=4096) as kept, asyncio.timeout(3 * SOON):
        first = await place.coordinator()
        # Alone, so that all contexts are its own; with others there, a new context would go to one of those.
        knows = await place.worker("w5", speak)
        for prompt in ("one", "two"):
            for number in range(CONTEXTS):
                task = await place.submit(prompt, f"c{number}")
                assert (await place.until(task.id, TaskStatus.COMPLETED)).worker_id == "w5"
        others = [await place.worker(f"w{number}", speak) for number in range(3)]
        for _ in range(2):
            first.cancel()
            await asyncio.wait({first})
            first = await place.coordinator()
            for name in ("w0", "w1", "w2", "w5"):
                await place.until_known(name, WorkerStatus.ONLINE)
            for number in range(CONTEXTS):
                before = len(knows.orders)
                task = await place.submit("again", f"c{number}")
                done = await place.until(task.id, TaskStatus.COMPLETED)
                assert done.worker_id == "w5"
                assert [order.resumes for order in knows.orders[before:]] == [f"session of c{number}"]
        fresh = await place.submit("one", "fresh")
        await place.until(fresh.id, TaskStatus.COMPLETED)
        (order,) = [order for runner in (*others, knows) for order in runner.orders if order.task.id == fresh.id]
        assert order.resumes is None
        said = list[bytes]()
        while (message := kept.next_nowait()) is not None:
            said.append(message.body)
            assert message.subject.split(".")[1] in {"scheduling", "leases"}
        assert said
        assert not [body for body in said if b"session of" in body]
        streams = await place.bus.request("$JS.API.STREAM.NAMES", b"{}", deadline=soon())
        assert "KV_sticky" not in json.loads(streams.body)["streams"]
