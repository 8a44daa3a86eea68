"""Memory that was freed between what stays is given back to the system."""

import os
import subprocess
import sys
from pathlib import Path

from membridge.cli.lean import ALLOCATOR

ROOT = Path(__file__).parents[3]
#: Frees 64 MiB of which every hundredth block stays, and prints what the process has before and after.
FREED = """\
import os
from membridge.system import memory
from tests.fixtures.resident import resident
kept = [bytearray(4096) for _ in range(16_384)]
del kept[::2], kept[::2], kept[::2]
before = resident(os.getpid())
memory.give_back()
print(before - resident(os.getpid()))
"""
#: Says how many objects are looked through at first, with more modules, and after that; and whether garbage is gone.
LOOKED_THROUGH = """\
import gc, weakref
from membridge.system import memory
class Cycle:
    pass
memory.give_back()
before = len(gc.get_objects())
import xml.dom.minidom, decimal, http.server
loaded = len(gc.get_objects())
memory.give_back()
after = len(gc.get_objects())
cycle = Cycle()
cycle.own, gone = cycle, weakref.ref(cycle)
del cycle
memory.give_back()
print(before, loaded, after, gone() is None)
"""


def test_what_was_freed_in_the_middle_is_given_back() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FREED], cwd=ROOT, env={**os.environ, **ALLOCATOR}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert int(done.stdout) > 16 << 20


def test_an_allocator_that_cannot_is_left_alone() -> None:
    code = "import sys; sys.modules['ctypes'] = None; from membridge.system import memory; memory.give_back()"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_modules_are_looked_through_once_and_garbage_each_time() -> None:
    done = subprocess.run([sys.executable, "-c", LOOKED_THROUGH], cwd=ROOT, capture_output=True, text=True, check=True)
    before, loaded, after, is_gone = done.stdout.split()
    assert int(before) < 1000
    assert int(loaded) > 5000
    assert int(after) < 1000
    assert is_gone == "True"
