"""An EIO anywhere in a push or a pull is one of our errors with a remedy, and no later push or pull suffers from it.

Calls that write are broken by the sweep of `tests/faults`; these are those that open, list, make, rename and delete.
"""

import errno
import os
import sys
from collections.abc import AsyncGenerator, Awaitable
from pathlib import Path

import pytest

from membridge.bus.connection import Bus
from membridge.claudemem.memory import memory_rows
from membridge.errors import MembridgeError
from membridge.objectstore.protocol import ObjectStore
from tests.fixtures.databases import add_observation, make_database
from tests.fixtures.lanes import MakeBox, opened_store

CALLS = frozenset({"open", "os.remove", "os.rename", "os.link", "os.mkdir", "os.scandir", "os.listdir", "os.truncate"})


class Disk:
    """Fails one call below a folder, the one with the chosen number; reached by an audit hook, which never ends."""

    def __init__(self) -> None:
        self.folder, self.left, self.failed = "", 0, ""
        sys.addaudithook(self._look)

    def arm(self, folder: Path, number: int) -> None:
        """Fail call `number` below `folder`."""
        self.folder, self.left, self.failed = str(folder), number, ""

    def disarm(self) -> str:
        """Fail nothing more; return what was failed."""
        self.folder = ""
        return self.failed

    def _look(self, event: str, arguments: tuple[object, ...]) -> None:
        if not self.folder or event not in CALLS or not arguments:
            return
        path = arguments[0]
        if isinstance(path, str | bytes) and os.fsdecode(path).startswith(self.folder):
            self.left -= 1
            if self.left == 0:
                self.failed = f"{event} {os.fsdecode(path)}"
                raise OSError(errno.EIO, os.strerror(errno.EIO), path)


DISK = Disk()


async def outcome_of(operation: Awaitable[object]) -> Exception | None:
    """Return what an operation raises."""
    try:
        await operation
    except Exception as error:  # noqa: BLE001 - what it is, is the question
        return error
    return None


@pytest.fixture
async def lane_store(bus: Bus) -> AsyncGenerator[ObjectStore]:
    """The store in NATS alone: it is this node's disk that fails."""
    async with opened_store("jetstream", bus, None) as store:
        yield store


@pytest.mark.parametrize("what", ["push", "pull"])
async def test_an_eio_anywhere_is_an_error_with_a_remedy(make_box: MakeBox, what: str) -> None:
    a, b = make_box("a"), make_box("b")
    make_database(a.database)
    await a.push()
    await b.pull()
    victim, refused, number, error = a if what == "push" else b, 0, 0, None
    while True:
        # Each of the first calls, then some of those that are alike.
        number += 1 + number // 12
        if error is None:
            add_observation(a.database, f"learned {number}")
            if what == "pull":
                await a.push()
        DISK.arm(victim.database.parent, number)
        error = await outcome_of(victim.push() if what == "push" else victim.pull())
        failed = DISK.disarm()
        if error is not None:
            refused += 1
            assert isinstance(error, MembridgeError), (error, failed)
            assert error.remedy, error.message
            assert "Input/output error" in error.message, failed
            assert "\n" not in error.message
        if not failed:
            break
    assert number > 5
    assert refused > 3
    await b.pull()
    assert memory_rows(a.database) == memory_rows(b.database)
