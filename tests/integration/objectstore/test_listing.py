"""Listing the default store: the names come at once, what they stand for page by page, and as much as is taken."""

from contextlib import aclosing

import pytest

from membridge.aio import tasks
from membridge.bus import jetstream as api
from membridge.bus.connection import Bus
from membridge.errors import BusUnavailableError, StoreUnavailableError
from membridge.objectstore import jetstream
from membridge.objectstore.jetstream import JetStreamStore, open_jetstream
from tests.fixtures.lanes import soon


async def test_pages_are_read_as_they_are_taken(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jetstream, "PAGE", 7)
    monkeypatch.setattr(api, "LAST_OF", 3)
    asked: list[int] = []
    real = api.last_of_each

    def counted(bus: Bus, stream: str, subjects: list[str], **options: object) -> object:
        asked.append(len(subjects))
        return real(bus, stream, subjects, **options)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(api, "last_of_each", counted)
    # Without the right to purge, what was deleted leaves a tombstone.
    store = JetStreamStore(bus, "listed", purges=False)
    await store.ensure(replicas=1, deadline=soon())

    async def put(number: int) -> None:
        await store.put(f"a/{number:03d}", b"x" * number, deadline=soon())

    await tasks.each(range(30), put, at_once=8)
    await store.put("b/000", b"", deadline=soon())
    for number in (3, 4, 29):
        await store.delete(f"a/{number:03d}", deadline=soon())
    await store.put("a/004", b"again", deadline=soon())
    found = [(info.key, info.size_bytes) async for info in store.list("a/", deadline=soon())]
    expected = {f"a/{number:03d}": number for number in range(30) if number not in {3, 29}} | {"a/004": 5}
    assert found == sorted(expected.items())
    assert asked == [7, 7, 7, 7, 2]
    after = [info.key async for info in store.list("a/", after="a/020", deadline=soon())]
    assert after == [key for key in sorted(expected) if key > "a/020"]
    asked.clear()
    async with aclosing(store.list("", after="a/005", deadline=soon())) as listing:
        assert (await anext(listing)).key == "a/006"
    assert asked == [7]


async def test_a_store_that_is_gone_is_an_error_and_no_empty_listing(bus: Bus) -> None:
    async with open_jetstream(bus, bucket="gone") as store:
        await store.put("a", b"", deadline=soon())
        await bus.request("$JS.API.STREAM.DELETE.OBJ_gone", b"", deadline=soon())
        with pytest.raises((BusUnavailableError, StoreUnavailableError)):
            [info async for info in store.list("", deadline=soon())]
