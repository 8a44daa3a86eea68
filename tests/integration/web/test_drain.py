"""A stop: what runs is answered, what waits is not begun, and what does not end is cut off and told so."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from schemas.errors import ErrorCode
from services.web.server import Listening
from tests.fixtures.pace import pause
from tests.fixtures.toy_web import Answer, Toy, ask, begun, parsed, toy_served


async def test_requests_that_run_are_answered_and_no_others_are_taken() -> None:
    async with asyncio.TaskGroup() as group, AsyncExitStack() as stack:
        toy = await stack.enter_async_context(toy_served())
        running = [group.create_task(ask(toy, "POST", "/slow")) for _ in range(20)]
        for _ in running:
            await toy.begun.get()
        stopped = group.create_task(stack.aclose())
        while not toy.flights.draining:
            await pause()
        with pytest.raises(ConnectionRefusedError):
            await ask(toy, "GET", "/health")
        assert not stopped.done()
        toy.go.set()
        assert {(await one).status for one in running} == {200}


async def test_a_stop_under_load_loses_no_answer_to_what_it_began() -> None:
    answers: list[Answer] = []

    async def asks(toy: Toy) -> None:
        while True:
            try:
                answers.append(await ask(toy, "PUT", "/notes/a", body=b'{"text":"t"}', key="admin"))
            except (ConnectionError, IndexError):
                return

    async with asyncio.TaskGroup() as group, AsyncExitStack() as stack:
        toy = await stack.enter_async_context(toy_served())
        for _ in range(32):
            group.create_task(asks(toy))
        while len(answers) < 200:
            await pause()
        await stack.aclose()
    # What the handler saw, a client has the answer to.
    assert len([one for one in answers if one.status == 200]) == len(toy.calls)
    assert {one.status for one in answers} <= {200, 503}


async def test_a_body_that_is_on_its_way_arrives() -> None:
    async with asyncio.TaskGroup() as group, AsyncExitStack() as stack:
        toy = await stack.enter_async_context(toy_served())
        reader, writer = await begun(toy, "PUT", "/notes/a", len(b'{"text":"t"}'), key="admin")
        stopped = group.create_task(stack.aclose())
        while not toy.flights.draining:
            await pause()
        writer.write(b'{"text":')
        await writer.drain()
        writer.write(b'"t"}')
        assert parsed(await reader.read()).status == 200
        writer.close()
        await stopped
    assert toy.notes["a"].text == "t"


async def test_what_does_not_end_in_time_is_told_so() -> None:
    async with asyncio.TaskGroup() as group, AsyncExitStack() as stack:
        toy = await stack.enter_async_context(toy_served(listening=Listening(grace=0.05)))
        running = group.create_task(ask(toy, "POST", "/slow"))
        await toy.begun.get()
        await stack.aclose()
        answer = await running
        assert (answer.status, answer.error.error) == (503, ErrorCode.UNAVAILABLE)
        assert answer.error.detail == "the server is stopping"


async def test_an_idle_connection_does_not_hold_up_a_stop() -> None:
    async with AsyncExitStack() as stack:
        toy = await stack.enter_async_context(toy_served())
        reader, writer = await asyncio.open_connection(toy.host, toy.port)
        writer.write(b"GET /health HTTP/1.1\r\nHost: l\r\n\r\n")
        await reader.readuntil(b'"}')
        async with asyncio.timeout(10.0):
            await stack.aclose()
        assert await reader.read() == b""
        writer.close()
