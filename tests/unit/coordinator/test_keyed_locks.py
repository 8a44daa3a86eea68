"""One at a time for each name, in the order in which they came, and nothing is left over."""

import asyncio

import pytest

from services.coordinator.keyed_locks import KeyedLocks


async def test_each_has_its_name_alone_and_in_turn_and_other_names_do_not_wait() -> None:
    keyed_locks, said, free = KeyedLocks(), list[str](), asyncio.Event()

    async def hold(name: str, who: str) -> None:
        async with keyed_locks.of(name):
            said.append(f"{who} has {name}")
            await free.wait()
            said.append(f"{who} leaves {name}")

    async with asyncio.TaskGroup() as group:
        for who in ("first", "second", "third"):
            group.create_task(hold("a", who))
        group.create_task(hold("b", "other"))
        await asyncio.sleep(0)
        assert said == ["first has a", "other has b"]
        assert len(keyed_locks) == 2
        free.set()
    assert [one for one in said if one.endswith(" a")] == [
        f"{who} {what} a" for who in ("first", "second", "third") for what in ("has", "leaves")
    ]
    assert len(keyed_locks) == 0


async def test_who_gives_up_waiting_or_fails_leaves_the_name_to_the_next() -> None:
    keyed_locks, got = KeyedLocks(), list[str]()

    async def take(who: str) -> None:
        async with keyed_locks.of("a"):
            got.append(who)

    async with asyncio.TaskGroup() as group, keyed_locks.of("a"):
        waiting = [group.create_task(take(who)) for who in ("gives up", "next")]
        await asyncio.sleep(0)
        waiting[0].cancel()
    with pytest.raises(ZeroDivisionError):
        async with keyed_locks.of("a"):
            got.append(f"{1 // len(keyed_locks) // 0}")
    await take("last")
    assert got == ["next", "last"]
    assert len(keyed_locks) == 0
