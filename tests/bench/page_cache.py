"""A page cache that fills the memory, as that of a machine which has been up for days.

The host of a virtual machine takes free memory back, and gives it again page by page: a GiB written into such memory
takes four times as long as into a page that was used for something else. Who comes first in a run would get it.
"""

import os
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

#: Bytes that stay free, of a file whose pages fill the rest, and that are read or written at once.
_FREE, _FILE, _PIECE = 512 << 20, 1 << 30, 1 << 20


@contextmanager
def full_page_cache(folder: Path) -> Generator[Callable[[], None]]:
    """Yield what fills the memory that is free at that time; the files in `folder` that do take no room on the disk."""
    numbers, made = count(), list[Path]()

    def fill() -> None:
        while _free() > _FREE:
            made.append(folder / f"cached-{next(numbers)}")
            _read_sparse(made[-1])

    try:
        yield fill
    finally:
        for path in made:
            path.unlink()


def cost_of_memory(folder: Path) -> str:
    """Say what a GiB costs that is written into memory which nobody has used, and into used memory."""
    path = folder / "written"
    seconds: list[float] = []
    for _ in range(2):
        began = time.process_time()
        with path.open("wb", buffering=0) as file:
            piece = bytes(256 << 10)
            for _ in range(_FILE // len(piece)):
                file.write(piece)
        seconds.append(time.process_time() - began)
    path.unlink()
    return f"a GiB written into free memory takes {seconds[0]:.2f} s, into memory used just before {seconds[1]:.2f} s"


def _read_sparse(path: Path) -> None:
    piece = bytearray(_PIECE)
    with path.open("w+b", buffering=0) as file:
        os.ftruncate(file.fileno(), _FILE)
        for at in range(0, _FILE, _PIECE):
            if _free() <= _FREE:
                return
            os.preadv(file.fileno(), [piece], at)


def _free() -> int:
    words = Path("/proc/meminfo").read_text(encoding="ascii").split()
    return int(words[words.index("MemFree:") + 1]) << 10
