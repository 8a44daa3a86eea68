"""What moving a large file costs in memory, in the daemon and in its transfer child, and that it is given back."""

import os
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from membridge.aio import threads
from membridge.aio.deadline import Deadline
from membridge.objectstore.s3.client import S3Options, S3Store, open_s3
from tests.fixtures.resident import resident

SIZE = 256 << 20
#: What the parent and the child may grow by.
PARENT, CHILD = 8 << 20, 64 << 20


@dataclass(slots=True)
class Peaks:
    """The most memory that processes had while they were watched, in bytes, and how often it was read."""

    most: dict[int, int] = field(default_factory=dict[int, int])
    samples: int = 0

    def sample(self, pids: tuple[int, ...]) -> None:
        """Read how much each process has now."""
        for pid in pids:
            self.most[pid] = max(self.most.get(pid, 0), resident(pid))
        self.samples += 1


@contextmanager
def watched(*pids: int) -> Generator[Peaks]:
    """Sample the memory of processes, fifty times a second, while the body runs."""
    peaks, over = Peaks(), threading.Event()

    def watch() -> None:
        while not over.wait(0.02):
            peaks.sample(pids)

    thread = threading.Thread(target=watch, name="memory watch")
    thread.start()
    try:
        yield peaks
    finally:
        over.set()
        thread.join()


def write_large(path: Path) -> None:
    block = os.urandom(1 << 20)
    with path.open("wb") as file:
        for number in range(SIZE >> 20):
            file.write(number.to_bytes(8, "big") + block[8:])


def same(one: Path, other: Path) -> bool:
    with one.open("rb") as first, other.open("rb") as second:
        while True:
            block = first.read(1 << 20)
            if block != second.read(1 << 20):
                return False
            if not block:
                return True


@pytest.mark.slow
async def test_a_large_file_moves_in_little_memory_and_the_child_gives_it_all_back(
    s3_options: S3Options, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    await threads.run(write_large, source)
    async with open_s3(s3_options) as store:
        assert isinstance(store, S3Store)
        await store.put("tiny", b"x", deadline=Deadline.after(20.0))
        child, parent = store.child_pid, os.getpid()
        assert child is not None
        before = {pid: resident(pid) for pid in (parent, child)}
        grown: dict[str, int] = {}
        for way in ("up", "down"):
            with watched(parent, child) as peaks:
                if way == "up":
                    await store.upload("large", source, deadline=Deadline.after(60.0), progress=lambda *_: None)
                else:
                    await store.download("large", target, deadline=Deadline.after(60.0), progress=lambda *_: None)
            assert peaks.samples > 5
            grown[f"parent {way}"] = peaks.most[parent] - before[parent]
            grown[f"child {way}"] = peaks.most[child] - before[child]
            grown[f"child in all {way}"] = peaks.most[child]
        assert store.child_pid == child
    for name, size in grown.items():
        record_property(name, f"{size / (1 << 20):.1f} MiB")
        print(f"{name}: {size / (1 << 20):.1f} MiB")  # noqa: T201 - the numbers, with `pytest -s`
    assert await threads.run(same, source, target)
    assert not await threads.run(Path(f"/proc/{child}").exists)
    assert max(grown["parent up"], grown["parent down"]) < PARENT
    assert max(grown["child up"], grown["child down"]) < CHILD
