"""An EIO anywhere in a push or a pull is one of our errors with a remedy, and no later push or pull suffers from it.

Calls that write are broken by the sweep of `tests/faults`; these are those that open, list, make, rename and delete.
"""

from collections.abc import AsyncGenerator, Awaitable

import pytest

from membridge.bus.connection import Bus
from membridge.claudemem.memory import memory_rows
from membridge.errors import MembridgeError
from membridge.objectstore.protocol import ObjectStore
from tests.fixtures.broken_disk import DISK
from tests.fixtures.databases import add_observation, make_database
from tests.fixtures.lanes import MakeBox, opened_store


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
