"""Requests and replies that one message does not hold, and what a stranger may say about them."""

import pytest

from membridge.aio.deadline import Deadline
from membridge.aio.tasks import background
from membridge.bus import bulk
from membridge.bus.connection import Bus
from membridge.bus.message import PART
from membridge.bus.rpc import RpcClient
from membridge.bus.service import Call, Endpoint, ServiceIdentity, serve
from membridge.errors import BusUnavailableError, TooLargeError
from schemas import subjects
from schemas.errors import ErrorCode, ErrorReply
from schemas.tasks import Task, TaskSpec, TaskStatus
from schemas.wire import decode, encode

IDENTITY = ServiceIdentity("membridge-runtime", "0.1.0", "test")
ID = "0f7f2f5e-6a43-4c5c-9d49-0a8a0b3d7a11"
SUBJECT = subjects.SUBMIT.at()


def soon() -> Deadline:
    return Deadline.after(20.0)


async def echo(spec: TaskSpec, call: Call) -> Task:
    return Task(
        id=ID, context_id=call.by, agent_slug="a", prompt=spec.prompt, status=TaskStatus.QUEUED, created_at="",
        updated_at="",
    )  # fmt: skip


def spec(prompt: str) -> TaskSpec:
    return TaskSpec(agent_slug="a", prompt=prompt)


ENDPOINT = Endpoint(operation=subjects.SUBMIT, subject=SUBJECT, handler=echo, queue="q")


async def test_a_body_of_any_size_up_to_the_bound_goes_there_and_back(bus: Bus) -> None:
    envelope = len(encode(spec("")))
    edge = bulk.room(bus) - envelope
    most = bulk.MOST_REQUEST - envelope
    # Of two members of a group one answers, and the whole request is its.
    async with serve(bus, IDENTITY, [ENDPOINT]), serve(bus, IDENTITY, [ENDPOINT]):
        for size in (1, edge - 1, edge, edge + 1, 2 * bulk.PART + 1, most):
            reply = await RpcClient(bus, on_behalf_of="me").request(subjects.SUBMIT, spec("x" * size), deadline=soon())
            assert (len(reply.prompt), reply.context_id) == (size, "me")
        with pytest.raises(TooLargeError, match=r"^the prompt is too large: ") as caught:
            await RpcClient(bus).request(subjects.SUBMIT, spec("x" * (most + 1)), deadline=soon())
        assert caught.value.field == "prompt"


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({bulk.AT: "membridge.worker.b.run", bulk.SIZE: "10"}, ErrorCode.INVALID_REQUEST),
        ({bulk.AT: "_INBOX.*", bulk.SIZE: "10"}, ErrorCode.INVALID_REQUEST),
        ({bulk.AT: "_INBOX.nobody", bulk.SIZE: "10"}, ErrorCode.UNAVAILABLE),
        ({bulk.AT: "_INBOX.liar", bulk.SIZE: "1"}, ErrorCode.INVALID_REQUEST),
        ({bulk.AT: "_INBOX.silent", bulk.SIZE: "10"}, ErrorCode.INVALID_REQUEST),
        ({bulk.AT: "_INBOX.liar", bulk.SIZE: str(bulk.MOST_REQUEST + 1)}, ErrorCode.TOO_LARGE),
        ({bulk.AT: "_INBOX.liar", bulk.SIZE: "9" * 400}, ErrorCode.INVALID_REQUEST),
    ],
)
async def test_a_request_that_lies_about_its_body_is_refused(
    bus: Bus, headers: dict[str, str], code: ErrorCode
) -> None:
    async def lie(request: TaskSpec, call: Call) -> Task:
        raise AssertionError

    liar = Endpoint(operation=subjects.SUBMIT, subject="_INBOX.liar", handler=lie)
    async with serve(bus, IDENTITY, [ENDPOINT, liar]), bus.subscribe("_INBOX.silent") as asked:

        async def answer() -> None:
            async for message in asked:
                await bus.publish(message.reply, b"")

        async with background() as group:
            group.create_task(answer())
            reply = await bus.request(SUBJECT, b"", headers=headers, deadline=soon())
    assert decode(reply.body, ErrorReply).code is code


async def test_a_reply_whose_part_is_lost_is_no_reply(bus: Bus) -> None:
    async with bus.subscribe("parts") as asked, background() as group:

        async def answer() -> None:
            async for message in asked:
                await bus.publish(message.reply, b"one", {PART: "1/3"})
                await bus.publish(message.reply, b"three", {PART: "3/3"})

        group.create_task(answer())
        with pytest.raises(BusUnavailableError, match="a part of the reply"):
            await bus.request("parts", b"", deadline=soon())
