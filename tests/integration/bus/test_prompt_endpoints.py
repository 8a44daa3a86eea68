"""Endpoints that take requests without a task each: every request gets its answer, as from a handler."""

import asyncio
import json
from collections import Counter
from collections.abc import Mapping

import pytest

from membridge.aio.deadline import Deadline
from membridge.bus.connection import Bus
from membridge.bus.message import Message
from membridge.bus.rpc import RpcClient
from membridge.bus.service import AT_ONCE, WAITING, Call, Endpoint, ServiceIdentity, serve
from membridge.errors import SecondaryPushBlockedError
from schemas import subjects
from schemas.errors import ErrorCode, ErrorReply
from schemas.leases import Accepted, Report
from schemas.results import Metrics, ResultStatus
from schemas.wire import MAX_BODY_BYTES, Wire, decode, encode

IDENTITY = ServiceIdentity("membridge-scheduler", "0.1.0", "test")
AT = subjects.REPORT.at(worker="w")
DONE = Accepted(accepted=True)
ID = "0f7f2f5e-6a43-4c5c-9d49-0a8a0b3d7a11"


def report(output: str = "o") -> Report:
    return Report(
        lease_id=ID, task_id=ID, worker_id="w", status=ResultStatus.SUCCESS, output=output,
        metrics=Metrics(duration_ms=1),
    )  # fmt: skip


class Queue:
    """Requests that wait in a queue of somebody else."""

    def __init__(self) -> None:
        self.answers: list[asyncio.Future[Wire]] = []
        self._wanted, self._there = 0, asyncio.Event()

    def take(self, _request: Report, _call: Call) -> "asyncio.Future[Wire]":
        self.answers.append(asyncio.get_running_loop().create_future())
        if len(self.answers) >= self._wanted:
            self._there.set()
        return self.answers[-1]

    async def until(self, number: int) -> None:
        """Wait until so many requests wait here."""
        self._wanted = number
        if len(self.answers) < number:
            self._there.clear()
            async with asyncio.timeout(10.0):
                await self._there.wait()


async def unexpected(request: Report, call: Call) -> Accepted:
    raise AssertionError("this request was for `prompt`")


def endpoint(prompt: object, handler: object = unexpected) -> Endpoint:
    return Endpoint(subjects.REPORT, AT, handler, prompt=prompt)  # type: ignore[arg-type]


def ask(group: asyncio.TaskGroup, bus: Bus, times: int) -> list[asyncio.Task[Message]]:
    body = encode(report())
    return [group.create_task(bus.request(AT, body, deadline=Deadline.after(10.0))) for _ in range(times)]


def codes(asked: list[asyncio.Task[Message]]) -> Counter[str]:
    return Counter(task.result().headers.get("Nats-Service-Error-Code", "ok") for task in asked)


async def test_a_request_is_answered_when_its_future_is(bus: Bus) -> None:
    queue = Queue()
    async with serve(bus, IDENTITY, [endpoint(queue.take)]), asyncio.TaskGroup() as group:
        asked = group.create_task(RpcClient(bus).request(subjects.REPORT, report(), worker="w"))
        await queue.until(1)
        assert not asked.done()
        queue.answers[0].set_result(DONE)
    assert asked.result() == DONE


@pytest.mark.parametrize("late", [False, True], ids=["at once", "later"])
@pytest.mark.parametrize(
    "error",
    [SecondaryPushBlockedError("this node is not primary", remedy="propose instead"), RuntimeError("swordfish")],
    ids=["known", "unexpected"],
)
async def test_an_error_is_answered_as_by_a_handler(bus: Bus, error: Exception, late: bool) -> None:
    def prompt(request: Report, call: Call) -> "asyncio.Future[Wire]":
        if not late:
            raise error
        answer: asyncio.Future[Wire] = asyncio.get_running_loop().create_future()
        answer.set_exception(error)
        return answer

    async def handler(request: Report, call: Call) -> Accepted:
        raise error

    told = list[tuple[Mapping[str, str], bytes]]()
    for one in (endpoint(prompt), endpoint(None, handler)):
        async with serve(bus, IDENTITY, [one]):
            reply = await bus.request(
                AT, encode(report()), headers={"Membridge-Request-Id": "mine"}, deadline=Deadline.after(10.0)
            )
            stats = await bus.request("$SRV.STATS.membridge-scheduler", deadline=Deadline.after(5.0))
        told.append((dict(reply.headers), reply.body))
        counted = json.loads(stats.body)["endpoints"][0]
        assert (counted["num_requests"], counted["num_errors"]) == (1, 1)
    assert told[0] == told[1]
    assert b"swordfish" not in told[0][1]
    assert decode(told[0][1], ErrorReply).request_id == "mine"


@pytest.mark.parametrize(("body", "field"), [(b'{"lease_id": 1}', "lease_id"), (b"{", None), (b"[]", None)])
async def test_a_body_that_is_no_request_is_refused_by_field(bus: Bus, body: bytes, field: str | None) -> None:
    queue = Queue()
    async with serve(bus, IDENTITY, [endpoint(queue.take)]):
        reply = await bus.request(AT, body, deadline=Deadline.after(10.0))
    assert decode(reply.body, ErrorReply).code is ErrorCode.INVALID_REQUEST
    assert decode(reply.body, ErrorReply).field == field
    assert queue.answers == []


async def test_a_cancelled_future_is_answered(bus: Bus) -> None:
    queue = Queue()
    async with serve(bus, IDENTITY, [endpoint(queue.take)]), asyncio.TaskGroup() as group:
        asked = ask(group, bus, 2)
        await queue.until(2)
        queue.answers[0].cancel()
        queue.answers[1].set_result(DONE)
    assert codes(asked) == {"503": 1, "ok": 1}


async def test_what_is_over_the_bound_is_told_to_come_later(bus: Bus) -> None:
    queue = Queue()
    async with serve(bus, IDENTITY, [endpoint(queue.take)]), asyncio.TaskGroup() as group:
        asked = ask(group, bus, AT_ONCE + WAITING + 100)
        async with asyncio.timeout(10.0):
            while sum(task.done() for task in asked) < 100:
                await asyncio.wait([task for task in asked if not task.done()], return_when=asyncio.FIRST_COMPLETED)
        assert len(queue.answers) == AT_ONCE + WAITING
        # As many are taken again as were answered.
        for answer in queue.answers[:10]:
            answer.set_result(DONE)
        async with asyncio.timeout(10.0):
            while sum(task.done() for task in asked) < 110:
                await asyncio.wait([task for task in asked if not task.done()], return_when=asyncio.FIRST_COMPLETED)
        again = ask(group, bus, 10)
        await queue.until(AT_ONCE + WAITING + 10)
        for answer in queue.answers[10:]:
            answer.set_result(DONE)
    assert codes(asked) == {"ok": AT_ONCE + WAITING, "429": 100}
    assert codes(again) == {"ok": 10}


@pytest.mark.parametrize("times", [1, AT_ONCE + 30])
async def test_a_stop_answers_what_is_done_meanwhile_and_what_is_left(bus: Bus, times: int) -> None:
    queue, stopping = Queue(), asyncio.Event()

    async def part(serving: asyncio.Event) -> None:
        async with serve(bus, IDENTITY, [endpoint(queue.take)], grace=0.3):
            serving.set()
            await stopping.wait()

    async with asyncio.timeout(20.0), asyncio.TaskGroup() as group:
        serving = asyncio.Event()
        stopped = group.create_task(part(serving))
        await serving.wait()
        asked = ask(group, bus, 2 * times)
        await queue.until(2 * times)
        stopping.set()
        await asyncio.sleep(0)
        for answer in queue.answers[:times]:
            answer.set_result(DONE)
        await stopped
        assert all(answer.done() for answer in queue.answers)
    assert codes(asked) == {"ok": times, "503": times}


async def test_a_stop_loses_no_answer_that_is_being_sent(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    queue, sends, goes_on = Queue(), asyncio.Event(), asyncio.Event()
    publish = Bus.publish

    async def slowly(self: Bus, subject: str, *args: object, **more: object) -> None:
        if subject.startswith("_INBOX.") and not goes_on.is_set():
            # As when the socket takes no more for a moment.
            sends.set()
            await goes_on.wait()
        await publish(self, subject, *args, **more)  # type: ignore[arg-type]

    async with (
        asyncio.timeout(20.0),
        asyncio.TaskGroup() as group,
        serve(bus, IDENTITY, [endpoint(queue.take)], grace=0.3),
    ):
        asked = ask(group, bus, 3)
        await queue.until(3)
        monkeypatch.setattr(Bus, "publish", slowly)
        for answer in queue.answers:
            answer.set_result(DONE)
        await sends.wait()
        asyncio.get_running_loop().call_later(0.1, goes_on.set)
    assert codes(asked) == {"ok": 3}


async def test_what_prompt_leaves_to_the_handler_is_the_handlers(bus: Bus) -> None:
    prompted = list[str]()

    def prompt(request: Report, call: Call) -> None:
        prompted.append(call.request_id)

    async def handler(request: Report, call: Call) -> Accepted:
        return Accepted(accepted=True, reason=f"{len(request.output or '')}")

    async with serve(bus, IDENTITY, [endpoint(prompt, handler)]):
        reply = await RpcClient(bus).request(subjects.REPORT, report(), worker="w")
        stats = await bus.request("$SRV.STATS.membridge-scheduler", deadline=Deadline.after(5.0))
        # A body in parts is fetched first, and that takes time.
        large = await RpcClient(bus).request(subjects.REPORT, report("o" * MAX_BODY_BYTES), worker="w")
    assert (reply.reason, large.reason) == ("1", f"{MAX_BODY_BYTES}")
    assert len(prompted) == 1
    assert json.loads(stats.body)["endpoints"][0]["num_requests"] == 1, "it is one request"


async def test_answers_are_sent_in_the_order_in_which_they_came(bus: Bus) -> None:
    queue, order = Queue(), list[int]()
    async with serve(bus, IDENTITY, [endpoint(queue.take)]), asyncio.TaskGroup() as group:
        asked = ask(group, bus, 20)
        for number, task in enumerate(asked):
            task.add_done_callback(lambda _, number=number: order.append(number))
        await queue.until(20)
        for answer in reversed(queue.answers):
            answer.set_result(DONE)
    assert order == [*reversed(range(20))]
