"""A full snapshot is unpacked while it is downloaded; what arrives is used only if it is what the record names."""

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from membridge.aio import threads
from membridge.aio.deadline import Deadline
from membridge.claudemem.memory import memory_rows
from membridge.errors import CorruptObjectError, StoreUnavailableError
from membridge.merge import image
from membridge.objectstore.protocol import Progress
from schemas.snapshot import PullOutcome
from tests.faults.store import FaultyStore
from tests.fixtures.lanes import Box, MakeBox
from tests.fixtures.pace import pause

SAMPLE = Path(__file__).parents[2] / "data" / "claude-mem-13.25.3.db"


@dataclass(slots=True)
class HalfWayStore(FaultyStore):
    """Waits when half of an object has arrived. Then `ending` does what it does; the first downloads are damaged."""

    damaged: int = 0
    downloads: int = 0
    half: asyncio.Event = field(default_factory=asyncio.Event)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    ending: Callable[[], Awaitable[None]] | None = None

    async def download(
        self, key: str, target: Path, *, start: int = 0, deadline: Deadline, progress: Progress | None = None
    ) -> None:
        assert not start
        self.downloads += 1
        whole = target.with_name("whole")
        await self.inner.download(key, whole, deadline=deadline)
        content = bytearray(whole.read_bytes())
        whole.unlink()
        if self.downloads <= self.damaged:
            content[len(content) // 3] ^= 1
        with target.open("wb") as file:
            file.write(content[: len(content) // 2])
            file.flush()
            if progress is not None:
                progress(len(content) // 2, len(content))
            self.half.set()
            await self.go_on.wait()
            if self.ending is not None:
                await self.ending()
            file.write(content[len(content) // 2 :])


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make an image of many parts of a small memory."""
    monkeypatch.setattr(image, "PART", 16 << 10)


@pytest.fixture
async def a(make_box: MakeBox, small_parts: None) -> Box:
    """A machine that pushed its memory."""
    del small_parts
    box = make_box("a")
    shutil.copyfile(SAMPLE, box.database)
    await box.push()
    return box


def half_way(box: Box, **given: object) -> tuple[Box, HalfWayStore]:
    store = HalfWayStore(box.lane.store, **given)  # pyright: ignore[reportArgumentType] - the test's own fields
    return Box(replace(box.lane, store=store), box.events), store


def staged(box: Box) -> int:
    """Return the bytes of memory files that are there."""
    return sum(path.stat().st_size for path in box.lane.mirror.directory.glob("*.memory"))


async def test_parts_are_unpacked_before_the_rest_has_arrived(make_box: MakeBox, a: Box) -> None:
    b, store = half_way(make_box("b"))
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        pulling = group.create_task(b.pull())
        await store.half.wait()
        while not staged(b):
            await pause()
        assert not pulling.done()
        store.go_on.set()

    assert pulling.result().outcome is PullOutcome.INSTALLED
    assert store.downloads == 1
    assert memory_rows(b.database) == memory_rows(a.database)


@pytest.mark.parametrize("damaged", [1, 2])
async def test_damage_of_the_network_is_repaired_by_another_download(make_box: MakeBox, a: Box, damaged: int) -> None:
    b, store = half_way(make_box("b"), damaged=damaged)
    store.go_on.set()

    assert (await b.pull()).outcome is PullOutcome.INSTALLED

    assert store.downloads == 1 + damaged
    assert memory_rows(b.database) == memory_rows(a.database)


@pytest.mark.usefixtures("a")
async def test_an_object_that_stays_damaged_is_one_error_and_leaves_nothing(make_box: MakeBox) -> None:
    b, store = half_way(make_box("b"), damaged=99)
    store.go_on.set()

    with pytest.raises(CorruptObjectError, match="sha256"):
        await b.pull()

    assert not b.database.exists()
    assert staged(b) == 0


@pytest.mark.usefixtures("a")
async def test_a_store_that_fails_half_way_is_the_error_and_not_what_was_read_of_it(make_box: MakeBox) -> None:
    async def fail() -> None:
        raise StoreUnavailableError("the line is cut")

    b, store = half_way(make_box("b"), ending=fail)
    store.go_on.set()

    with pytest.raises(StoreUnavailableError, match="the line is cut"):
        await b.pull()

    assert not b.database.exists()
    assert staged(b) == 0


@pytest.mark.usefixtures("a")
async def test_a_pull_that_is_cancelled_half_way_ends_at_once_and_leaves_nothing(make_box: MakeBox) -> None:
    b, store = half_way(make_box("b"))
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        pulling = group.create_task(b.pull())
        await store.half.wait()
        pulling.cancel()
        await asyncio.wait({pulling})

    assert pulling.cancelled()
    assert not b.database.exists()
    assert staged(b) == 0


async def test_more_pulls_at_once_than_threads_do_not_wait_for_each_other(make_box: MakeBox, a: Box) -> None:
    boxes = [half_way(make_box(f"b{number}")) for number in range(threads.THREADS + 2)]
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        pulls = [group.create_task(box.pull()) for box, _ in boxes]
        for _, store in boxes:
            await store.half.wait()
        # All wait for the rest. What brings it may need a thread.
        assert await threads.run(lambda: "free") == "free"
        for _, store in boxes:
            store.go_on.set()

    assert {pull.result().outcome for pull in pulls} == {PullOutcome.INSTALLED}
    assert all(memory_rows(box.database) == memory_rows(a.database) for box, _ in boxes)
