"""A page cache that fills the memory, as that of a machine which has been up for days.

The host of a virtual machine takes free memory back, and gives it again page by page: a GiB written into such memory
takes four times as long as into a page that was used for something else. Who comes first in a run would get it.
"""

import os
import tempfile
import time
from pathlib import Path

#: Bytes that stay free, of a file whose pages fill the rest, and that are read or written at once.
_FREE, _FILE, _PIECE = 512 << 20, 1 << 30, 256 << 10


def fill_page_cache(folder: Path) -> None:
    """Fill the memory that is free with pages of files in `folder`, which take no room on the disk and have to stay."""
    # Where a container may use less than the machine has, new pages take the place of older ones, and none is used up.
    for _ in range(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // _FILE + 1):
        if _free() <= _FREE:
            return
        descriptor, _ = tempfile.mkstemp(prefix="cached-", dir=folder)
        with open(descriptor, "rb", buffering=0) as file:  # noqa: PTH123 - a descriptor has no path
            os.ftruncate(descriptor, _FILE)
            while file.read(_PIECE) and _free() > _FREE:
                pass


def cost_of_memory(folder: Path) -> str:
    """Say what a GiB costs that is written into memory which nobody has used, and into used memory."""
    path, piece = folder / "written", bytes(_PIECE)
    seconds: list[float] = []
    for _ in range(2):
        began = time.process_time()
        with path.open("wb", buffering=0) as file:
            for _ in range(_FILE // _PIECE):
                file.write(piece)
        seconds.append(time.process_time() - began)
    path.unlink()
    return f"a GiB written into free memory takes {seconds[0]:.2f} s, into memory used just before {seconds[1]:.2f} s"


def _free() -> int:
    words = Path("/proc/meminfo").read_text(encoding="ascii").split()
    return int(words[words.index("MemFree:") + 1]) << 10
