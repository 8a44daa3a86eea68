"""The entries of leases in KV: short tasks write none, and that of a longer one is there and is gone afterwards."""

import asyncio
from collections.abc import Callable, Coroutine

import pytest

from membridge.errors import BusUnavailableError
from membridge.worker.worker import AttemptResult
from schemas.leases import Lease, Order
from schemas.tasks import TaskStatus
from services.coordinator import lease_entries
from services.coordinator.lease_entries import LeaseEntries
from tests.fixtures.idle_port import IdlePort
from tests.fixtures.tasks import SOON, OpenPlace, echo


async def test_a_lease_that_ends_within_a_moment_has_no_entry_and_a_longer_one_has_until_it_ends(
    opened: OpenPlace, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A busy machine may take a second for a short task.
    monkeypatch.setattr(lease_entries, "MOMENT", 3 * lease_entries.MOMENT)
    free = asyncio.Event()

    async def work(order: Order) -> AttemptResult:
        if order.task.prompt == "long":
            await free.wait()
        return await echo(order)

    async with opened() as place, place.bus.subscribe("$KV.leases.>") as entries, asyncio.timeout(SOON):
        await place.coordinator()
        runner = await place.worker("w1", work)
        for number in range(5):
            task = await place.submit("short", context=f"{number}")
            await place.until(task.id, TaskStatus.COMPLETED)
        task = await place.submit("long")
        written = await entries.next()
        lease = runner.orders[-1].lease
        assert (runner.orders[-1].task.id, written.subject) == (task.id, f"$KV.leases.{lease.id}")
        assert "KV-Operation" not in written.headers
        free.set()
        await place.until(task.id, TaskStatus.COMPLETED)
        deleted = await entries.next()
        assert (deleted.subject, deleted.headers["KV-Operation"]) == (written.subject, "DEL")
        # Nothing came before, and nothing comes after.
        last = await place.submit("short", "last")
        await place.until(last.id, TaskStatus.COMPLETED)
        await place.bus.settle()
        assert entries.next_nowait() is None


def lease(name: str = "l", *, renewed: bool = False) -> Lease:
    return Lease(
        id=name, task_id="t", worker_id="w", started_at="1", expires_at="9", ttl_seconds=30,
        last_heartbeat="2" if renewed else "1", context_id="c",
    )  # fmt: skip


class Store(IdlePort):
    """A KV whose writes wait until they are let."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.entries: set[str] = set()
        self.goes_on = asyncio.Event()
        self.fails = False

    async def hold(self, lease: Lease) -> None:
        self.said.append(f"writes {lease.id}")
        await self.goes_on.wait()
        if self.fails:
            raise BusUnavailableError("the connection is down")
        self.entries.add(lease.id)
        self.said.append(f"wrote {lease.id}")

    async def let_go(self, lease: Lease) -> None:
        self.said.append(f"deletes {lease.id}")
        self.entries.discard(lease.id)


class Stage:
    """Entries over a store; `settle` waits for what they do in the background."""

    def __init__(self) -> None:
        self.store = Store()
        self.tasks: set[asyncio.Task[None]] = set()
        self.entries = LeaseEntries(self.store, self._start)

    def _start(self, work: Callable[[], Coroutine[None, None, None]]) -> None:
        self.tasks.add(asyncio.get_running_loop().create_task(work()))

    async def settle(self) -> list[str]:
        self.store.goes_on.set()
        while pending := {task for task in self.tasks if not task.done()}:
            await asyncio.wait(pending)
        return self.store.said


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A moment that is over at once."""
    monkeypatch.setattr(lease_entries, "MOMENT", 0.0)


async def written(stage: Stage) -> None:
    """Wait until a write is under way."""
    async with asyncio.timeout(10.0):
        while not stage.store.said:  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0)


async def test_a_renewed_lease_is_written_at_once_and_once() -> None:
    stage = Stage()
    stage.entries.hold(lease())
    stage.entries.hold(lease(renewed=True))
    assert await stage.settle() == ["writes l", "wrote l"]
    stage.entries.release(lease())
    assert await stage.settle() == ["writes l", "wrote l", "deletes l"]


async def test_a_lease_that_ends_before_its_moment_is_never_written() -> None:
    stage = Stage()
    stage.entries.hold(lease())
    stage.entries.release(lease())
    assert await stage.settle() == []


@pytest.mark.usefixtures("at_once")
async def test_a_write_under_way_does_not_bring_an_entry_back() -> None:
    stage = Stage()
    stage.entries.hold(lease())
    await written(stage)
    stage.entries.release(lease())
    stage.entries.hold(lease("other", renewed=True))
    said = await stage.settle()
    assert [one for one in said if one.endswith(" l")] == ["writes l", "wrote l", "deletes l"]
    assert stage.store.entries == {"other"}


@pytest.mark.usefixtures("at_once")
async def test_of_what_waits_for_a_write_the_last_counts() -> None:
    stage = Stage()
    stage.entries.hold(lease())
    await written(stage)
    for _ in range(3):
        stage.entries.hold(lease(renewed=True))
    stage.entries.release(lease())
    assert await stage.settle() == ["writes l", "wrote l", "deletes l"]


@pytest.mark.usefixtures("at_once")
async def test_a_write_that_fails_hinders_none_that_follows() -> None:
    stage = Stage()
    stage.store.fails = True
    stage.entries.hold(lease())
    await written(stage)
    stage.entries.release(lease())
    assert await stage.settle() == ["writes l", "deletes l"]
    stage.store.fails = False
    stage.entries.hold(lease(renewed=True))
    assert (await stage.settle())[2:] == ["writes l", "wrote l"]


async def test_a_lease_of_an_earlier_tenure_is_deleted_although_this_one_never_wrote_it() -> None:
    stage = Stage()
    stage.entries.release(lease())
    assert await stage.settle() == ["deletes l"]


@pytest.mark.usefixtures("at_once")
async def test_the_end_of_a_tenure_writes_nothing_more() -> None:
    stage = Stage()
    stage.entries.hold(lease())
    stage.entries.close()
    for _ in range(3):
        await asyncio.sleep(0)
    assert await stage.settle() == []
