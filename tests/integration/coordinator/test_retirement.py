"""Retention of outputs: the old ones go, whatever else lies in the store; listing ends at the first young task."""

import secrets
from collections.abc import AsyncGenerator

import pytest

from membridge.bus.connection import Bus
from membridge.errors import StoreUnavailableError
from membridge.objectstore.protocol import ObjectStore
from services.coordinator import retirement
from services.coordinator.engine.ids import made_at, ordered_id, output_id
from services.coordinator.retirement import Retirement
from tests.bench.commits import CountingStore
from tests.fixtures.lanes import opened_store, soon

DAY = 86_400.0
NOW = 1_800_000_000.0


@pytest.fixture(params=["jetstream", "s3"])
async def outputs(request: pytest.FixtureRequest, bus: Bus) -> AsyncGenerator[ObjectStore]:
    """An empty store, of each kind."""
    options = request.getfixturevalue("s3_options") if request.param == "s3" else None
    async with opened_store(request.param, bus, options) as store:
        yield store


def key(task: float, lease: float) -> str:
    """Return the key of an output of a task and an attempt that began so many days ago."""
    begun = [ordered_id(NOW - days * DAY, secrets.token_bytes(10)) for days in (task, lease)]
    return f"artifacts/{begun[0]}/{output_id(begun[1])}"


async def keys(store: ObjectStore) -> set[str]:
    return {info.key async for info in store.list("", deadline=soon())}


async def test_what_is_too_old_goes_and_nothing_else(outputs: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retirement, "BATCH", 3)
    old = {key(400 - number, 400 - number) for number in range(8)}
    # A young output of an old task, young tasks, and what another program named.
    young = {key(390, 3), key(9, 9), key(1, 0)}
    foreign = {
        "artifacts/1b4e28ba-2fa1-41d2-883f-0016d3cca427/1b4e28ba-2fa1-41d2-883f-0016d3cca427",
        "artifacts/a-file.txt",
        "projects/x/snapshots/1",
    }
    for one in old | young | foreign:
        await outputs.put(one, b"output", deadline=soon())
    assert await Retirement(outputs, 10).retire(NOW, deadline=soon()) == len(old)
    assert await keys(outputs) == young | foreign
    assert await Retirement(outputs, 10).retire(NOW, deadline=soon()) == 0


async def test_a_listing_ends_at_the_first_young_task(outputs: ObjectStore) -> None:
    for number in range(12):
        await outputs.put(key(number, number), b"output", deadline=soon())
    store = CountingStore(outputs)
    assert await Retirement(store, 10).retire(NOW, deadline=soon()) == 1
    assert store.calls["listed"] == 2


async def test_broken_off_it_goes_on_the_next_time(outputs: ObjectStore) -> None:
    for number in range(6):
        await outputs.put(key(20 + number, 20), b"output", deadline=soon())

    class Failing(CountingStore):
        async def delete(self, key: str, **options: object) -> None:
            await super().delete(key, **options)  # pyright: ignore[reportArgumentType]
            self.calls["deleted"] += 1
            if self.calls["deleted"] == 2:
                raise StoreUnavailableError("the answer is lost", remedy="try again")

    with pytest.raises(StoreUnavailableError):
        await Retirement(Failing(outputs), 10).retire(NOW, deadline=soon())
    left = len(await keys(outputs))
    assert left < 6
    assert await Retirement(outputs, 10).retire(NOW, deadline=soon()) == left
    assert await keys(outputs) == set()


def test_an_id_tells_when_it_was_made() -> None:
    one = ordered_id(NOW, secrets.token_bytes(10))
    assert made_at(one) == NOW
    assert made_at(output_id(one)) == NOW
    for other in ("", "x", "1b4e28ba-2fa1-41d2-883f-0016d3cca427", one.upper(), one.replace("-", "")):
        assert made_at(other) is None
