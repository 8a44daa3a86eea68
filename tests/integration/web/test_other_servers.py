"""Requests to another server: ten seconds a try, three tries, and pauses of 0.5 s and 1 s, on a clock that jumps."""

import asyncio
import selectors
from collections.abc import Callable
from typing import cast

import pytest

from membridge.aio.deadline import Deadline
from membridge.errors import UnavailableError
from services.web.client import Reply, fetch
from tests.fixtures.ports import free_port

#: Answers the n-th request, from 0 on.
Answer = Callable[[int, asyncio.Transport], None]
#: Seconds without news from a socket of this process after which nothing more will come.
STILL = 0.05


class _Selector(selectors.DefaultSelector):
    """Waits for sockets as ever; where they are still, the clock jumps to the next timer instead."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        waits = timeout is not None and timeout > STILL
        found = super().select(STILL if waits else timeout)
        if waits and not found:
            self.now += timeout or 0.0
        return found


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.jumping = _Selector()
        super().__init__(self.jumping)

    def time(self) -> float:
        return self.jumping.now


class _Server(asyncio.Protocol):
    """Notes when each request comes, and has it answered."""

    def __init__(self, times: list[float], answer: Answer) -> None:
        self._times, self._answer = times, answer

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        assert data
        self._times.append(asyncio.get_running_loop().time())
        self._answer(len(self._times) - 1, self._transport)


def asked(answer: Answer, method: str = "GET") -> tuple[Reply | UnavailableError, list[float], float]:
    """Ask a server of this loop; return the outcome, when each request came, and when it ended."""

    async def ask() -> tuple[Reply | UnavailableError, list[float], float]:
        loop, times = asyncio.get_running_loop(), list[float]()
        server = await loop.create_server(lambda: _Server(times, answer), "127.0.0.1", 0)
        outcome = await outcome_of(method, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
        ended = loop.time()
        server.close()
        return outcome, times, ended

    with asyncio.Runner(loop_factory=_Loop) as runner:
        return runner.run(ask())


async def outcome_of(method: str, url: str) -> Reply | UnavailableError:
    try:
        return await fetch(method, url, body=None, headers={}, deadline=Deadline.after(40.0))
    except UnavailableError as error:
        return error


def hang(_: int, __: asyncio.Transport) -> None:
    """Answer nothing."""


def answering(*statuses: int) -> Answer:
    return lambda number, transport: transport.write(
        f"HTTP/1.1 {statuses[number]} x\r\nContent-Length: 2\r\n\r\nok".encode()
    )


def test_a_server_that_hangs_is_asked_three_times_for_ten_seconds_each() -> None:
    outcome, times, ended = asked(hang)
    assert isinstance(outcome, UnavailableError)
    assert "no answer in time" in outcome.message
    assert times == pytest.approx([0.0, 10.5, 21.5], abs=0.01)
    assert ended == pytest.approx(31.5, abs=0.01)


def test_a_server_that_fails_twice_answers_at_the_third_try_after_twice_as_long_a_pause() -> None:
    outcome, times, _ = asked(answering(503, 502, 200))
    assert outcome == Reply(200, b"ok")
    assert times == pytest.approx([0.0, 0.5, 1.5], abs=0.01)


def test_the_third_failure_is_the_answer() -> None:
    outcome, times, _ = asked(answering(503, 503, 504, 200))
    assert outcome == Reply(504, b"ok")
    assert len(times) == 3


@pytest.mark.parametrize("status", [404, 401, 500])
def test_what_another_try_would_not_change_is_asked_once(status: int) -> None:
    outcome, times, _ = asked(answering(status, 200))
    assert outcome == Reply(status, b"ok")
    assert times == [0.0]


def test_a_change_is_sent_once() -> None:
    outcome, times, ended = asked(hang, "POST")
    assert isinstance(outcome, UnavailableError)
    assert times == [0.0]
    assert ended == pytest.approx(10.0, abs=0.01)


def test_a_server_that_refuses_connections_is_tried_three_times() -> None:
    async def ask() -> tuple[Reply | UnavailableError, float]:
        url = f"http://127.0.0.1:{free_port()}/"
        return await outcome_of("GET", url), asyncio.get_running_loop().time()

    with asyncio.Runner(loop_factory=_Loop) as runner:
        outcome, ended = runner.run(ask())
    assert isinstance(outcome, UnavailableError)
    assert outcome.message.endswith("/ does not answer: Connection refused")
    assert ended == pytest.approx(1.5, abs=0.01)
