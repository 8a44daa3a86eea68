"""Batches: what comes meanwhile goes together, each gets its own answer, and nobody waits for others."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

import pytest

from membridge.aio import batches as module
from membridge.aio.batches import Batches
from membridge.aio.tasks import background
from membridge.errors import MembridgeError, NotFoundError, OverloadedError, UnavailableError


@dataclass
class Other:
    """The other side: it answers when it is told to."""

    asked: list[list[int]] = field(default_factory=list[list[int]])
    came: asyncio.Event = field(default_factory=asyncio.Event)
    go: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    failure: Exception | None = None

    async def ask(self, things: Sequence[int]) -> Sequence[str | MembridgeError]:
        self.asked.append(list(things))
        self.came.set()
        await self.go.acquire()
        if self.failure is not None:
            raise self.failure
        return [NotFoundError(f"no {thing}") if thing < 0 else f"<{thing}>" for thing in things]

    async def heard(self) -> None:
        """Wait until it is asked again."""
        async with asyncio.timeout(10.0):
            await self.came.wait()
        self.came.clear()


@pytest.fixture
async def other() -> Other:
    return Other()


@pytest.fixture
async def asking(other: Other) -> AsyncGenerator[Batches[int, str]]:
    async with background() as group:
        yield Batches(group, other.ask, most=4, at_once=1)


async def test_the_first_goes_at_once_and_what_comes_meanwhile_together(
    other: Other, asking: Batches[int, str]
) -> None:
    first = asking.answer(1)
    await other.heard()
    later = [asking.answer(number) for number in range(2, 8)]
    other.go.release()
    assert await first == "<1>"
    other.go.release()
    other.go.release()
    assert [await one for one in later] == [f"<{number}>" for number in range(2, 8)]
    # At most four at a time, in their order.
    assert other.asked == [[1], [2, 3, 4, 5], [6, 7]]
    # An idle one begins again.
    again = asking.answer(8)
    other.go.release()
    assert await again == "<8>"


async def test_what_comes_in_one_turn_of_the_loop_goes_together(other: Other, asking: Batches[int, str]) -> None:
    answers = [asking.answer(number) for number in range(3)]
    other.go.release()
    assert [await one for one in answers] == ["<0>", "<1>", "<2>"]
    assert other.asked == [[0, 1, 2]]


async def test_an_error_of_one_is_that_of_one(other: Other, asking: Batches[int, str]) -> None:
    answers = [asking.answer(number) for number in (1, -2, 3)]
    other.go.release()
    assert await answers[0] == "<1>"
    with pytest.raises(NotFoundError, match="no -2"):
        await answers[1]
    assert await answers[2] == "<3>"


@pytest.mark.parametrize(
    ("failure", "seen"), [(UnavailableError("away"), UnavailableError), (RuntimeError("inside"), MembridgeError)]
)
async def test_a_request_that_fails_fails_those_in_it_and_no_others(
    other: Other, asking: Batches[int, str], failure: Exception, seen: type[MembridgeError]
) -> None:
    other.failure = failure
    answers = [asking.answer(number) for number in (1, 2)]
    other.go.release()
    for one in answers:
        with pytest.raises(seen):
            await one
    other.failure = None
    other.go.release()
    assert await asking.answer(3) == "<3>"


async def test_what_nobody_waits_for_any_more_is_not_asked_for(other: Other, asking: Batches[int, str]) -> None:
    first = asking.answer(1)
    await other.heard()
    gone, stays = asking.answer(2), asking.answer(3)
    gone.cancel()
    other.go.release()
    other.go.release()
    assert (await first, await stays) == ("<1>", "<3>")
    assert other.asked == [[1], [3]]


async def test_an_end_leaves_nobody_waiting(other: Other) -> None:
    async with background() as group:
        asking = Batches(group, other.ask, most=4, at_once=1)
        under_way = asking.answer(1)
        await other.heard()
        waiting = asking.answer(2)
    assert under_way.cancelled()
    assert waiting.cancelled()


async def test_so_many_may_wait_and_no_more(
    other: Other, asking: Batches[int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WAITING", 2)
    first = asking.answer(1)
    await other.heard()
    others = [asking.answer(2), asking.answer(3)]
    with pytest.raises(OverloadedError):
        asking.answer(4)
    other.go.release()
    other.go.release()
    assert [await one for one in (first, *others)] == ["<1>", "<2>", "<3>"]
