"""The memory of a process that lives for months: glibc keeps what was freed in the middle of its heap.

Long work leaves megabytes there, between what stays. Another C library does as it likes.
"""

import functools
import gc
import sys
from collections.abc import Callable

#: Objects made, beyond those that are gone, between two collections of the youngest garbage.
GARBAGE = 20_000


def give_back() -> None:
    """Return freed memory to the system. Longer after modules were loaded; safe beside other threads."""
    # A job leaves rows in cycles, half a MiB that Python would find only much later.
    gc.collect()
    _leave_out(len(sys.modules))
    _trim()(0)


@functools.lru_cache(maxsize=1)
def _leave_out(modules: int) -> None:
    """Look no more through what is there now, once for each number of `modules`.

    Loaded modules stay, and to look through them takes 10 to 35 ms of the event loop. A cycle that is alive now and
    dies later is never found: only so many as there are times that something was loaded.
    """
    del modules
    gc.freeze()


@functools.cache
def _trim() -> Callable[[int], object]:
    try:
        # Loaded by the first long work: 0.3 MB that a short process need not have.
        import ctypes  # noqa: PLC0415 - as said

        return ctypes.CDLL(None).malloc_trim
    except (ImportError, OSError, AttributeError):
        return bool


def rarely_collected() -> None:
    """Collect garbage rarely from now on, and never look through what exists now: for a server that is ready.

    Requests leave little that reference counts do not free, and looking for it took a tenth of their time. What it
    took to become ready is given back.
    """
    give_back()
    gc.freeze()
    gc.set_threshold(GARBAGE)
