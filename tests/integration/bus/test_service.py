"""Endpoints by the micro conventions: concurrent, bounded, counted, and silent about what nobody should see."""

import asyncio
import json

import pytest

from membridge.aio.deadline import Deadline
from membridge.bus.connection import Bus
from membridge.bus.rpc import RpcClient
from membridge.bus.service import AT_ONCE, Call, Endpoint, ServiceIdentity, serve
from membridge.errors import NoResponderError, RemoteError, SecondaryPushBlockedError
from schemas import subjects
from schemas.errors import ErrorCode, ErrorReply
from schemas.leadership import LeadershipReply
from schemas.node import Empty
from schemas.snapshot import PushOutcome, PushReply, PushRequest
from schemas.wire import MAX_BODY_BYTES, decode

PROJECT = "0" * 16
IDENTITY = ServiceIdentity("membridge-node", "0.1.0", "test", {"node": "a"})
PUSH = subjects.PUSH.at(project=PROJECT, node="a")


def soon() -> Deadline:
    return Deadline.after(10.0)


def endpoint(handler: object) -> Endpoint:
    return Endpoint(operation=subjects.PUSH, subject=PUSH, handler=handler)  # type: ignore[arg-type]


async def unchanged(request: PushRequest, call: Call) -> PushReply:
    return PushReply(outcome=PushOutcome.UNCHANGED, job_id=call.request_id)


async def test_a_typed_request_gets_its_typed_reply(bus: Bus) -> None:
    async with serve(bus, IDENTITY, [endpoint(unchanged)]):
        reply = await RpcClient(bus).request(subjects.PUSH, PushRequest(), project=PROJECT, node="a")
    assert reply.outcome is PushOutcome.UNCHANGED
    assert reply.job_id


async def test_an_empty_body_is_the_empty_request_as_the_stock_cli_sends_it(bus: Bus) -> None:
    async with serve(bus, IDENTITY, [endpoint(unchanged)]):
        reply = await bus.request(PUSH, b"", deadline=soon())
    assert decode(reply.body, PushReply).outcome is PushOutcome.UNCHANGED


async def test_requests_of_one_endpoint_run_at_the_same_time(bus: Bus) -> None:
    meeting = asyncio.Barrier(AT_ONCE)

    async def together(request: PushRequest, call: Call) -> PushReply:
        await meeting.wait()
        return await unchanged(request, call)

    async with serve(bus, IDENTITY, [endpoint(together)]), asyncio.timeout(10.0), asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(RpcClient(bus).request(subjects.PUSH, PushRequest(), project=PROJECT, node="a"))


async def test_an_error_leaves_as_headers_and_body(bus: Bus) -> None:
    async def blocked(request: PushRequest, call: Call) -> PushReply:
        raise SecondaryPushBlockedError("this node is not primary", remedy="propose instead")

    async with serve(bus, IDENTITY, [endpoint(blocked)]):
        reply = await bus.request(PUSH, b"{}", deadline=soon())
        with pytest.raises(RemoteError) as remote:
            await RpcClient(bus).request(subjects.PUSH, PushRequest(), project=PROJECT, node="a")
    assert (reply.headers["Nats-Service-Error"], reply.headers["Nats-Service-Error-Code"]) == (
        "this node is not primary",
        "409",
    )
    body = decode(reply.body, ErrorReply)
    assert (body.code, body.remedy) == (ErrorCode.SECONDARY_PUSH_BLOCKED, "propose instead")
    assert remote.value.mapping.exit == 3


async def test_an_unexpected_error_says_nothing_but_its_request_id(bus: Bus) -> None:
    async def broken(request: PushRequest, call: Call) -> PushReply:
        raise RuntimeError("the password is swordfish")

    async with serve(bus, IDENTITY, [endpoint(broken)]):
        reply = await bus.request(PUSH, b"{}", deadline=soon())
    assert b"swordfish" not in reply.body
    assert "swordfish" not in str(reply.headers)
    body = decode(reply.body, ErrorReply)
    assert body.code is ErrorCode.INTERNAL
    assert body.request_id


@pytest.mark.parametrize(
    ("body", "field"), [(b'{"snapshot": "yes"}', "snapshot"), (b"{", None), (b"\xff", None), (b"[]", None)]
)
async def test_a_body_that_is_no_request_is_a_400_that_names_the_field(
    bus: Bus, body: bytes, field: str | None
) -> None:
    async with serve(bus, IDENTITY, [endpoint(unchanged)]):
        reply = await bus.request(PUSH, body, deadline=soon())
    assert reply.headers["Nats-Service-Error-Code"] == "400"
    assert decode(reply.body, ErrorReply).field == field


async def test_an_unknown_field_is_ignored(bus: Bus) -> None:
    async with serve(bus, IDENTITY, [endpoint(unchanged)]):
        reply = await bus.request(PUSH, b'{"later": 1}', deadline=soon())
    assert "Nats-Service-Error" not in reply.headers


@pytest.mark.parametrize("reply", ["", "membridge.a1b2c3d4e5f60718.node.other.push", "$KV.heads.a1b2c3d4e5f60718"])
async def test_only_who_waits_in_an_inbox_is_served(bus: Bus, reply: str) -> None:
    called: list[str] = []

    async def heard(request: PushRequest, call: Call) -> PushReply:
        called.append(call.request_id)
        return await unchanged(request, call)

    async with serve(bus, IDENTITY, [endpoint(heard)]):
        # What JetStream or another service was made to send here has no inbox to answer to.
        await bus.publish(PUSH, b"{}", {"Membridge-Request-Id": "redirected"}, reply=reply)
        await bus.request(PUSH, b"{}", deadline=soon(), headers={"Membridge-Request-Id": "asked"})
    assert called == ["asked"]


async def test_a_stop_lets_running_requests_answer(bus: Bus) -> None:
    running, may_end = asyncio.Event(), asyncio.Event()

    async def slow(request: PushRequest, call: Call) -> PushReply:
        running.set()
        await may_end.wait()
        return await unchanged(request, call)

    async with asyncio.TaskGroup() as group, serve(bus, IDENTITY, [endpoint(slow)], grace=5.0):
        asked = group.create_task(bus.request(PUSH, b"{}", deadline=soon()))
        await running.wait()
        asyncio.get_running_loop().call_later(0.05, may_end.set)
    assert decode(asked.result().body, PushReply).outcome is PushOutcome.UNCHANGED
    with pytest.raises(NoResponderError):
        await bus.request(PUSH, b"{}", deadline=soon())


async def test_a_request_that_outlives_the_stop_is_answered_unavailable(bus: Bus) -> None:
    running = asyncio.Event()

    async def endless(request: PushRequest, call: Call) -> PushReply:
        running.set()
        await asyncio.Event().wait()
        return await unchanged(request, call)

    async with asyncio.TaskGroup() as group, serve(bus, IDENTITY, [endpoint(endless)], grace=0.05):
        asked = group.create_task(bus.request(PUSH, b"{}", deadline=soon()))
        await running.wait()
    assert asked.result().headers["Nats-Service-Error-Code"] == "503"


async def test_ping_info_and_stats_are_what_the_stock_cli_expects(bus: Bus) -> None:
    async with serve(bus, IDENTITY, [endpoint(unchanged)]):
        await bus.request(PUSH, b"{}", deadline=soon())
        await bus.request(PUSH, b"{", deadline=soon())
        replies = {
            verb: json.loads((await bus.request(f"$SRV.{verb}.membridge-node", b"", deadline=soon())).body)
            for verb in ("PING", "INFO", "STATS")
        }
    assert replies["PING"]["type"] == "io.nats.micro.v1.ping_response"
    info = replies["INFO"]
    assert (info["name"], info["description"], info["metadata"]) == ("membridge-node", "test", {"node": "a"})
    assert info["endpoints"][0]["metadata"] == {"impact": "write", "request": "PushRequest", "reply": "PushReply"}
    stats = replies["STATS"]["endpoints"][0]
    assert (stats["num_requests"], stats["num_errors"]) == (2, 1)
    assert stats["processing_time"] > 0


async def test_a_request_larger_than_its_bound_never_leaves(bus: Bus) -> None:
    async with serve(bus, IDENTITY, [endpoint(unchanged)]):
        with pytest.raises(Exception, match="bytes"):
            await bus.request(PUSH, b"x" * (MAX_BODY_BYTES + 1), deadline=soon())


async def test_of_a_queue_group_one_member_answers(bus: Bus) -> None:
    async def get(request: Empty, call: Call) -> LeadershipReply:
        answered.append(call.request_id)
        return LeadershipReply()

    answered: list[str] = []
    subject = subjects.LEADERSHIP_GET.at(project=PROJECT)
    one = Endpoint(operation=subjects.LEADERSHIP_GET, subject=subject, handler=get, queue="leadership")
    async with serve(bus, IDENTITY, [one]), serve(bus, IDENTITY, [one]):
        await RpcClient(bus).request(subjects.LEADERSHIP_GET, Empty(), project=PROJECT)
        await bus.settle()
    assert len(answered) == 1
