"""Timers alone: they fire in order, once, and none keeps another from firing."""

import asyncio

from services.coordinator.timers import Timers


async def until(fired: list[str], number: int) -> None:
    """Wait until so many have fired."""
    async with asyncio.timeout(10.0):
        while len(fired) < number:  # noqa: ASYNC110 - what is waited for is the loop's own clock
            await asyncio.sleep(0)


async def test_each_fires_once_at_its_time_in_order() -> None:
    timers, fired = Timers(), list[str]()
    for name, seconds in (("third", 0.03), ("first", 0.0), ("second", 0.01), ("past", -5.0)):
        timers.after(seconds, lambda name=name: fired.append(name))
    await until(fired, 4)
    assert set(fired[:2]) == {"first", "past"}
    assert fired[2:] == ["second", "third"]
    timers.close()


async def test_one_that_raises_stops_no_other() -> None:
    timers, fired = Timers(), list[str]()

    def broken() -> None:
        fired.append("broken")
        raise RuntimeError

    timers.after(0.0, broken)
    timers.after(0.0, lambda: fired.append("same instant"))
    timers.after(0.01, lambda: fired.append("later"))
    await until(fired, 3)
    timers.after(0.0, lambda: fired.append("made after it"))
    await until(fired, 4)
    assert fired == ["broken", "same instant", "later", "made after it"]
    timers.close()


async def test_one_that_is_cancelled_never_fires() -> None:
    timers, fired = Timers(), list[str]()
    soonest = timers.after(0.0, lambda: fired.append("cancelled"))
    timers.after(0.01, lambda: fired.append("kept"))
    timers.cancel(soonest)
    timers.cancel(soonest)
    await until(fired, 1)
    assert fired == ["kept"]
    timers.close()


async def test_many_that_are_cancelled_cost_no_memory_and_lose_none() -> None:
    timers, fired = Timers(), list[str]()
    numbers = [timers.after(1_000.0, lambda: fired.append("never")) for _ in range(1_000)]
    timers.after(0.01, lambda: fired.append("kept"))
    for number in numbers:
        timers.cancel(number)
    assert len(timers) <= 66
    await until(fired, 1)
    assert fired == ["kept"]
    timers.close()


async def test_one_that_sets_another_and_one_that_cancels_another() -> None:
    timers, fired = Timers(), list[str]()
    second = timers.after(0.01, lambda: fired.append("cancelled by the first"))

    def first() -> None:
        fired.append("first")
        timers.cancel(second)
        timers.after(0.0, lambda: fired.append("set by the first"))

    timers.after(0.0, first)
    timers.after(0.02, lambda: fired.append("last"))
    await until(fired, 3)
    assert fired == ["first", "set by the first", "last"]
    timers.close()


async def test_once_closed_none_fires() -> None:
    timers, fired, other = Timers(), list[str](), list[str]()
    timers.after(0.0, lambda: fired.append("before"))
    timers.close()
    timers.after(0.0, lambda: fired.append("after"))
    Timers().after(0.01, lambda: other.append("other"))
    await until(other, 1)
    assert fired == []
