"""What the change costs at each size: two daemons on the default store, ten observations at a time, Litestream beside.

python -m tests.bench.sizes                     50, 250 and 1,000 MiB, written to docs/benchmarks-sizes.md
python -m tests.bench.sizes --sizes 50 250      other sizes, printed and not written

Fails when what only depends on the change grows with the size, and when a daemon takes more memory than 64 MiB.
"""

import argparse
import asyncio
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from membridge.testing.node_process import NodeProcess
from membridge.testing.writer import write
from tests.bench import ours, peers, table
from tests.bench.database import add_observations, grow, new_random
from tests.bench.page_cache import cost_of_memory, fill_page_cache
from tests.bench.s3 import start_s3

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks-sizes.md"
SIZES = (50, 250, 1000)
INTRODUCTION = """\
Written by `python -m tests.bench.sizes` on {day}: two daemons on the default store, ten observations at a time,
medians. Each cell: processor time of the daemon, bytes that it wrote, and wall time, of which 0.1 s is the quiet time
that the daemon waits for. What it wrote is the lesser of the system's two counts (`wchar` and `write_bytes`); the disk
gets less than that: 1.0 MB and 1.3 MB for the merge at 53 and 1,000 MiB, by the disk's own counter. The first push and
the cold pull may grow with the size; the run fails if another row grows more than 1.5 times, or a daemon takes more
than 64 MiB. The first merge on a machine copies the database once, as a backup, and is not in the medians.

Before each part the page cache fills the memory, as that of a machine that has been up for days. The host of a virtual
machine takes free memory back, and who writes a GiB into such memory pays for it: by how much, the last line says.
"""
#: Rounds of ten observations; the first merge copies the database as a backup, so the first two do not count.
ROUNDS, UNCOUNTED = 14, 2
#: A row may grow by this factor from the smallest size to the largest; below the floor it is noise of the clock.
GROWTH = 1.5
FLOOR = {"s": 0.1, "MB": 1.0}
#: What may grow with the size.
GROWING = ("first push", "cold pull")
#: MiB that a daemon may take at most, whatever it does.
MOST_MEMORY = 64.0


@dataclass(frozen=True, slots=True)
class Cost:
    """Processor and wall time in seconds, and megabytes written, of one daemon."""

    cpu: float
    wall: float
    written: float


@dataclass(slots=True)
class AtSize:
    """The medians at one size: costs by what was done, MiB that each daemon took at most, and Litestream's seconds."""

    costs: dict[str, Cost] = field(default_factory=dict[str, Cost])
    peaks: dict[str, float] = field(default_factory=dict[str, float])
    litestream: peers.Litestream | None = None


class Meter:
    """What a daemon has cost since this was made."""

    def __init__(self, machine: NodeProcess) -> None:
        self._pid = ours.pid_of(machine)
        self._began = time.perf_counter(), _cpu(self._pid), _written(self._pid)

    def cost(self) -> Cost:
        """Return the cost until now."""
        wall, cpu, written = self._began
        grown = min(now - then for now, then in zip(_written(self._pid), written, strict=True))
        return Cost(_cpu(self._pid) - cpu, time.perf_counter() - wall, grown / 1e6)


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.sizes", description="Measure at several sizes.")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="MiB (default: %(default)s)")
    sizes: list[int] = parser.parse_args().sizes
    with tempfile.TemporaryDirectory(prefix="membridge-sizes-") as folder:
        memory = cost_of_memory(Path(folder))
    found = {size: _measure(size) for size in sizes}
    text = _markdown(found)
    sys.stdout.write(text)
    if tuple(sizes) == SIZES:
        PAGE.write_text(_page(text, memory), encoding="utf-8")
    if grown := _grown(found):
        raise SystemExit(f"these grow with the size: {', '.join(grown)}")


def _measure(size: int) -> AtSize:
    found = AtSize()
    with tempfile.TemporaryDirectory(prefix="membridge-sizes-") as folder:
        root = Path(folder)
        original = root / "original.db"
        sys.stderr.write(f"measuring: a database of {size} MiB\n")
        grow(original, size)
        with start_s3(root / "s3") as s3:
            found.litestream = peers.litestream(original, s3, root, prepare=lambda: fill_page_cache(root))
        shutil.rmtree(root / "s3", ignore_errors=True)
        asyncio.run(_daemons(original, root, found))
    return found


async def _daemons(original: Path, root: Path, found: AtSize) -> None:
    with ours.start_nats(root / "nats") as server:
        a, b = (_machine(name, root, server.url) for name in ("a", "b"))
        shutil.copyfile(original, a.database)
        try:
            await asyncio.to_thread(fill_page_cache, root)
            await a.start()
            meter = Meter(a)
            await ours.until(lambda: ours.committed(a) >= 1)
            found.costs["first push"] = meter.cost()
            await asyncio.to_thread(fill_page_cache, root)
            await b.start()
            meter = Meter(b)
            await ours.until(lambda: b.database.exists() and ours.count_of(b) == ours.count_of(a))
            found.costs["cold pull"] = meter.cost()
            with closing(ours.worker_connection(a.database)), closing(ours.worker_connection(b.database)):
                await _changes(a, b, found)
            found.peaks = {"of the first node": _peak(ours.pid_of(a)), "of the second node": _peak(ours.pid_of(b))}
        finally:
            await a.stop()
            await b.stop()


async def _changes(a: NodeProcess, b: NodeProcess, found: AtSize) -> None:
    random = new_random(1_703)
    pushes: list[Cost] = []
    pulls: list[Cost] = []
    for _ in range(ROUNDS):
        known, there, here = ours.committed(a), Meter(b), Meter(a)
        await asyncio.to_thread(add_observations, a.database, peers.NEW, rng=random)
        wanted = ours.count_of(a)
        await ours.until(lambda known=known: ours.committed(a) > known)
        pushes.append(here.cost())
        await ours.until(lambda wanted=wanted: ours.count_of(b) >= wanted)
        pulls.append(there.cost())
    found.costs["push"] = _median(pushes[UNCOUNTED:])
    found.costs["pull and merge"] = _median(pulls[UNCOUNTED:])
    made: list[Cost] = []
    taken: list[Cost] = []
    for number in range(ROUNDS):
        made_by, taken_by = Meter(b), Meter(a)
        await asyncio.to_thread(write, str(b.database), peers.NEW, f"proposed-{number}")
        wanted = ours.count_of(b)
        await ours.until(lambda wanted=wanted: ours.count_of(a) >= wanted)
        made.append(made_by.cost())
        taken.append(taken_by.cost())
    found.costs["proposal made"] = _median(made[UNCOUNTED:])
    found.costs["proposal taken in"] = _median(taken[UNCOUNTED:])
    for name, act in {"status": "status", "push without news": "push"}.items():
        found.costs[name] = _median([await _asked(a, act) for _ in range(ROUNDS)])


async def _asked(machine: NodeProcess, command: str) -> Cost:
    meter = Meter(machine)
    await machine.command(command)
    return meter.cost()


def _median(costs: Sequence[Cost]) -> Cost:
    return Cost(*(statistics.median(getattr(cost, name) for cost in costs) for name in ("cpu", "wall", "written")))


def _markdown(found: dict[int, AtSize]) -> str:
    sizes = list(found)
    lines = ["| | " + " | ".join(f"{size:,} MiB" for size in sizes) + " |", "|---|" + "---|" * len(sizes)]
    for name in found[sizes[0]].costs:
        cells = [found[size].costs[name] for size in sizes]
        shown = (f"{cost.cpu:.2f} s, {cost.written:.1f} MB, {cost.wall:.2f} s" for cost in cells)
        lines.append(f"| {name} | {' | '.join(shown)} |")
    peaks = {name: [f"{found[size].peaks[name]:.1f} MiB" for size in sizes] for name in found[sizes[0]].peaks}
    lines += [f"| memory {name} at most | {' | '.join(cells)} |" for name, cells in peaks.items()]
    references: dict[str, Callable[[peers.Litestream], float]] = {
        "Litestream, after the same ten": lambda one: one.increment_seconds,
        "Litestream, start to snapshot": lambda one: one.snapshot_seconds,
        "Litestream, restore": lambda one: one.restore_seconds,
    }
    for name, number in references.items():
        seconds = [number(one) for size in sizes if (one := found[size].litestream) is not None]
        lines.append(f"| {name} | " + " | ".join(f"{value:.2f} s" for value in seconds) + " |")
    return "\n".join(lines) + "\n"


def _page(text: str, memory: str) -> str:
    introduction = INTRODUCTION.format(day=f"{datetime.now(UTC):%Y-%m-%d}")
    machine = f"{table.machine()}- new memory: {memory}\n"
    return f"# What the change costs, by size\n\n{introduction}\n{text}\n## Machine\n\n{machine}"


def _grown(found: dict[int, AtSize]) -> list[str]:
    """Return the rows of a change that cost more at the largest size than they may."""
    small, large = found[min(found)].costs, found[max(found)].costs
    peaks = found[max(found)].peaks
    names = [f"memory {name} ({peak:.1f} MiB)" for name, peak in peaks.items() if peak > MOST_MEMORY]
    for name in small.keys() - set(GROWING):
        for unit, before, after in (
            ("s", small[name].cpu, large[name].cpu),
            ("MB", small[name].written, large[name].written),
        ):
            if after > max(before * GROWTH, FLOOR[unit]):
                names.append(f"{name} ({before:.2f} to {after:.2f} {unit})")
    return sorted(names)


def _machine(name: str, root: Path, url: str) -> NodeProcess:
    extra = {"MEMBRIDGE_QUIET_SECONDS": "0.1", "LEADERSHIP_LEASE_SECONDS": "30"}
    machine = NodeProcess(name, root / name, url, "sizes", extra=extra)
    machine.database.parent.mkdir(parents=True)
    return machine


def _cpu(pid: int) -> float:
    # The clock of a process' processor time, to the nanosecond; /proc counts hundredths of a second. The number is what
    # the C library's clock_getcpuclockid makes of a process id.
    return time.clock_gettime((~pid << 3) | 2)


def _peak(pid: int) -> float:
    words = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").split()
    return int(words[words.index("VmHWM:") + 1]) / 1024


def _written(pid: int) -> tuple[int, int]:
    """Return two numbers that are never below what reached the disk.

    What was written, sockets too; and what the page cache took, which counts a large page whole when a byte of it
    changes. A cache of files that were read at once has such pages.
    """
    words = Path(f"/proc/{pid}/io").read_text(encoding="ascii").split()
    wchar, cached = (int(words[words.index(name) + 1]) for name in ("wchar:", "write_bytes:"))
    return wchar, cached


if __name__ == "__main__":
    main()
