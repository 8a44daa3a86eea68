"""A worker answers many orders in one message, each for itself, also when it has room for some of them only."""

import asyncio
import uuid

import pytest

from membridge.bus.rpc import RpcClient
from membridge.bus.service import Call, Endpoint, ServiceIdentity, serve
from membridge.errors import RemoteError
from membridge.worker.worker import AttemptResult
from schemas import subjects
from schemas.leases import Accepted, Lease, LeaseClaim, Order, Orders, Report
from schemas.node import Empty
from schemas.tasks import Task, TaskStatus
from tests.fixtures.tasks import OpenPlace, echo, soon

YES = Accepted(accepted=True)


def order(name: str) -> Order:
    task, lease = str(uuid.uuid4()), str(uuid.uuid4())
    return Order(
        task=Task(
            id=task, context_id=name, agent_slug="a", prompt=name, status=TaskStatus.LEASED, created_at="1",
            updated_at="1",
        ),
        lease=Lease(
            id=lease, task_id=task, worker_id="w1", started_at="1", expires_at="9", ttl_seconds=300, last_heartbeat="1",
            context_id=name,
        ),
    )  # fmt: skip


async def test_each_of_many_orders_has_its_own_answer(opened: OpenPlace) -> None:
    free, reported = asyncio.Event(), asyncio.Queue[str]()

    async def work(order: Order) -> AttemptResult:
        await free.wait()
        return await echo(order)

    async def report(request: Report, call: Call) -> Accepted:
        reported.put_nowait(request.lease_id)
        return YES

    async def hand_back(request: LeaseClaim, call: Call) -> Accepted:
        return YES

    # In place of a coordinator.
    endpoints = [
        Endpoint(operation, operation.at(worker="w1"), handler)  # type: ignore[arg-type]
        for operation, handler in ((subjects.REPORT, report), (subjects.HAND_BACK, hand_back))
    ]
    async with opened() as place, serve(place.bus, ServiceIdentity("fake", "0", ""), endpoints):
        ask = RpcClient(place.bus)

        async def send(*orders: Order) -> list[Accepted]:
            reply = await ask.request(subjects.RUN, Orders(orders=[*orders]), deadline=soon(), worker="w1")
            return reply.answers

        runner = await place.worker("w1", work, at_once=3)
        one, two, three, four, five = (order(name) for name in "abcde")
        assert await send(one) == [YES]
        # One is there already and takes no room again; three finds the last place taken by two.
        full = Accepted(accepted=False, reason="it already runs 3 tasks")
        assert await send(one, two, three, four, one) == [YES, YES, YES, full, YES]
        status = await ask.request(subjects.WORKER_STATUS, Empty(), deadline=soon(), worker="w1")
        assert status.running == [each.task.id for each in (one, two, three)]
        assert [each.task.prompt for each in runner.orders] == ["a", "b", "c"]
        free.set()
        assert {await reported.get() for _ in range(3)} == {each.lease.id for each in (one, two, three)}
        assert await send(four, five) == [YES, YES]
        assert {await reported.get() for _ in range(2)} == {four.lease.id, five.lease.id}
        with pytest.raises(RemoteError, match="orders"):
            await send()


async def test_a_worker_without_the_program_rejects_each(opened: OpenPlace) -> None:
    async with opened() as place:
        runner = await place.worker("w1", claude=False)
        orders = Orders(orders=[order("a"), order("b")])
        reply = await RpcClient(place.bus).request(subjects.RUN, orders, deadline=soon(), worker="w1")
        assert reply.answers == [Accepted(accepted=False, reason="there is no claude program")] * 2
        assert runner.orders == []
