"""A service at its bounds and at its end: every request gets an answer, whatever happens to the service."""

import asyncio
from collections import Counter
from dataclasses import replace

import pytest

from membridge.aio.deadline import Deadline
from membridge.bus import bulk
from membridge.bus.connection import Bus
from membridge.bus.message import Message
from membridge.bus.service import AT_ONCE, LARGE, WAITING, Call, Endpoint, ServiceIdentity, serve
from schemas import subjects
from schemas.errors import ErrorCode, ErrorReply
from schemas.snapshot import PushOutcome, PushReply, PushRequest
from schemas.wire import decode

IDENTITY = ServiceIdentity("membridge-node", "0.1.0", "test")
PUSH = subjects.PUSH.at(project="0" * 16, node="a")
DONE = PushReply(outcome=PushOutcome.UNCHANGED, job_id="job")


class Gate:
    """A handler that lets nobody through before it is opened, and counts who stands in it."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.inside = 0
        self.most = 0
        self.entered = asyncio.Event()

    async def __call__(self, _request: PushRequest, _call: Call) -> PushReply:
        self.inside += 1
        self.most = max(self.most, self.inside)
        self.entered.set()
        try:
            await self.open.wait()
        finally:
            self.inside -= 1
        return DONE


def endpoint(handler: Gate) -> Endpoint:
    return Endpoint(operation=subjects.PUSH, subject=PUSH, handler=handler)


def ask(group: asyncio.TaskGroup, bus: Bus, times: int) -> list[asyncio.Task[Message]]:
    return [group.create_task(bus.request(PUSH, b"{}", deadline=Deadline.after(10.0))) for _ in range(times)]


def codes(asked: list[asyncio.Task[Message]]) -> Counter[str]:
    return Counter(task.result().headers.get("Nats-Service-Error-Code", "ok") for task in asked)


async def test_what_is_over_the_bound_is_told_to_come_later(bus: Bus) -> None:
    gate = Gate()
    async with serve(bus, IDENTITY, [endpoint(gate)]), asyncio.TaskGroup() as group:
        asked = ask(group, bus, AT_ONCE + WAITING + 100)
        async with asyncio.timeout(10.0):
            await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
            # The bus keeps order: an answered request of the same endpoint means that all before it were looked at.
            while sum(task.done() for task in asked) < 100:
                await asyncio.wait([task for task in asked if not task.done()], return_when=asyncio.FIRST_COMPLETED)
        gate.open.set()
    assert codes(asked) == {"ok": AT_ONCE + WAITING, "429": 100}
    assert gate.most == AT_ONCE
    refused = next(task.result() for task in asked if "Nats-Service-Error-Code" in task.result().headers)
    assert decode(refused.body, ErrorReply).code is ErrorCode.RATE_LIMITED


async def test_a_part_that_is_cancelled_still_lets_its_running_requests_answer(bus: Bus) -> None:
    gate, listening = Gate(), asyncio.Event()

    async def part() -> None:
        async with serve(bus, IDENTITY, [endpoint(gate)]):
            listening.set()
            await asyncio.Event().wait()

    async with asyncio.timeout(10.0), asyncio.TaskGroup() as group:
        serving = group.create_task(part())
        await listening.wait()
        asked = ask(group, bus, 1)
        await gate.entered.wait()
        serving.cancel()
        await asyncio.sleep(0)
        gate.open.set()
    assert codes(asked) == {"ok": 1}
    assert serving.cancelled()


@pytest.mark.parametrize("times", [1, AT_ONCE, AT_ONCE + 30])
async def test_a_stop_answers_those_that_run_and_those_that_wait(bus: Bus, times: int) -> None:
    gate = Gate()
    async with asyncio.TaskGroup() as group, serve(bus, IDENTITY, [endpoint(gate)], grace=0.05):
        asked = ask(group, bus, times)
        async with asyncio.timeout(5.0):
            await gate.entered.wait()
        await bus.settle()
    assert codes(asked) == {"503": times}


async def test_a_failing_body_comes_out_as_itself_after_the_requests_were_answered(bus: Bus) -> None:
    gate, asked = Gate(), list[asyncio.Task[Message]]()

    async def failing(group: asyncio.TaskGroup) -> None:
        async with serve(bus, IDENTITY, [endpoint(gate)], grace=0.05):
            asked.extend(ask(group, bus, 1))
            async with asyncio.timeout(5.0):
                await gate.entered.wait()
            raise ZeroDivisionError

    async with asyncio.TaskGroup() as group:
        with pytest.raises(ZeroDivisionError):
            await failing(group)
    assert codes(asked) == {"503": 1}


async def test_a_large_request_waits_for_others_no_longer_than_its_time(bus: Bus) -> None:
    async def never(_request: PushRequest, _call: Call) -> PushReply:
        raise AssertionError

    slow = Endpoint(operation=subjects.PUSH, subject=PUSH, handler=never)
    hasty = Endpoint(operation=replace(subjects.PUSH, deadline=0.2), subject=f"{PUSH}.hasty", handler=never)
    large = {bulk.AT: "_INBOX.silent", bulk.SIZE: "10"}
    async with (
        serve(bus, IDENTITY, [slow, hasty], grace=0.05),
        asyncio.TaskGroup() as group,
        bus.subscribe("_INBOX.silent") as fetched,
    ):
        filling = [
            group.create_task(bus.request(PUSH, b"", headers=large, deadline=Deadline.after(20.0)))
            for _ in range(LARGE)
        ]
        for _ in filling:
            await fetched.next()
        reply = await bus.request(f"{PUSH}.hasty", b"", headers=large, deadline=Deadline.after(20.0))
        assert decode(reply.body, ErrorReply).code is ErrorCode.DEADLINE_EXCEEDED
        assert not any(task.done() for task in filling)
        for task in filling:
            task.cancel()


async def test_refused_requests_are_counted_as_errors(bus: Bus) -> None:
    gate = Gate()
    gate.open.set()
    async with serve(bus, IDENTITY, [endpoint(gate)]):
        await bus.request(PUSH, b"{", deadline=Deadline.after(5.0))
        stats = await bus.request("$SRV.STATS.membridge-node", deadline=Deadline.after(5.0))
    assert b'"num_requests":1' in stats.body
    assert b'"num_errors":1' in stats.body
