"""Turns a command into the process that runs for months, under the same process id and in less memory.

That has no command line in memory, no docstrings, and an allocator that gives back what is freed.
"""

import os
import subprocess
import sys
from importlib.util import cache_from_source
from pathlib import Path
from typing import NoReturn

import membridge

#: glibc's allocator for a process that lives for months: one arena, and freed memory given back. A push allocates tens
#: of megabytes for a moment; by default 8 MiB of them stay for good. Read by the C library at start only.
ALLOCATOR = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_TRIM_THRESHOLD_": "65536",
    "MALLOC_MMAP_THRESHOLD_": "65536",
}


def become(module: str, *arguments: str, cache: Path) -> NoReturn:
    """Run a module of `membridge` with these arguments in place of this process.

    Python compiles each module once more to leave out docstrings, 1 MiB of a daemon. It keeps the results beside the
    modules; in `cache` where those or the standard library belong to somebody else.
    """
    sys.stdout.flush()
    command = [sys.executable, *_without_docstrings(module, cache), "-m", module, *arguments]
    os.execve(sys.executable, command, {**ALLOCATOR, **os.environ})  # noqa: S606 - our own program


def _without_docstrings(module: str, cache: Path) -> list[str]:
    # Where Python keeps nothing, every start would compile everything.
    if sys.dont_write_bytecode:
        return []
    options = ["-OO", "-X", "no_debug_ranges"]
    if not all(map(_is_kept, (os.__file__, __file__))):
        sys.pycache_prefix = str(cache)
        options += ["-X", f"pycache_prefix={cache}"]
    source = Path(membridge.__file__).parent.joinpath(*module.split(".")[1:]).with_suffix(".py")
    if not _compiled(str(source)).exists():
        # The compiler's memory stays with a process: after an installation another one compiles.
        subprocess.run([sys.executable, *options, "-c", f"import {module}"], check=False)  # noqa: S603 - our own program
    return options


def _is_kept(module: str) -> bool:
    compiled = _compiled(module)
    return compiled.exists() or os.access(compiled.parent, os.W_OK)


def _compiled(module: str) -> Path:
    return Path(cache_from_source(module, optimization=2))
