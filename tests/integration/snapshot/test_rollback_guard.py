"""A file that is put back at any moment is noticed before anything of it leaves this node."""

import shutil
from collections.abc import AsyncGenerator

import pytest

from membridge.bus.connection import Bus
from membridge.claudemem.memory import memory_rows
from membridge.commits.progress import ProgressTracker
from membridge.errors import DatabaseMissingError, HeadMovedError
from membridge.objectstore.protocol import ObjectStore
from membridge.snapshot import proposals, rollback_guard
from schemas.snapshot import PullOutcome, PushOutcome
from tests.fixtures.databases import add_observation, execute, make_database, titles
from tests.fixtures.lanes import Box, MakeBox, opened_store, soon


@pytest.fixture
async def lane_store(bus: Bus) -> AsyncGenerator[ObjectStore]:
    """The store in NATS alone: it is this node's disk that went back."""
    async with opened_store("jetstream", bus, None) as store:
        yield store


@pytest.fixture
async def boxes(make_box: MakeBox) -> tuple[Box, Box]:
    """Two nodes that know the same; the first keeps an older file of its database."""
    a, b = make_box("a"), make_box("b")
    make_database(a.database)
    shutil.copyfile(a.database, a.lane.folder / "older.db")
    add_observation(a.database, "pushed")
    await a.push()
    await rollback_guard.note(a.lane, deadline=soon())
    await b.pull()
    return a, b


def remove(box: Box) -> None:
    """Take a database away."""
    for file in box.database.parent.glob("claude-mem.db*"):
        file.unlink()


def put_back(box: Box) -> None:
    """Put the older file in its place."""
    remove(box)
    shutil.copyfile(box.lane.folder / "older.db", box.database)


async def test_it_is_noticed_between_the_copy_and_the_commit(boxes: tuple[Box, Box]) -> None:
    a, b = boxes
    put_back(a)
    with pytest.raises(HeadMovedError, match="earlier state"):
        await a.push()
    # The remedy is the same command.
    assert (await a.push()).outcome is PushOutcome.UNCHANGED
    assert "pushed" in titles(a.database)
    await b.pull()
    assert memory_rows(a.database) == memory_rows(b.database)


async def test_it_is_noticed_before_a_proposal_is_stored(boxes: tuple[Box, Box]) -> None:
    a, _ = boxes
    put_back(a)
    for allow_shrink, expected in ((False, HeadMovedError), (True, None)):
        preparing = proposals.prepare(
            a.lane, queue="q", allow_shrink=allow_shrink, progress=ProgressTracker(), deadline=soon()
        )
        if expected is not None:
            with pytest.raises(expected):
                await preparing
        else:
            # Meant so; and without a mirror, which is forgotten by now, nothing counts as deleted.
            assert all(one.announcement.rows for one in await preparing)


async def test_what_was_noted_outlives_a_database_that_is_missing_for_a_while(boxes: tuple[Box, Box]) -> None:
    a, b = boxes
    remove(a)
    with pytest.raises(DatabaseMissingError):
        await a.push()
    await rollback_guard.heal(a.lane, progress=ProgressTracker(), deadline=soon())
    await rollback_guard.note(a.lane, deadline=soon())
    put_back(a)
    await rollback_guard.note(a.lane, deadline=soon())
    assert await rollback_guard.heal(a.lane, progress=ProgressTracker(), deadline=soon())
    assert memory_rows(a.database) == memory_rows(b.database)


async def test_a_database_that_was_installed_anew_did_not_go_back(boxes: tuple[Box, Box]) -> None:
    a, _ = boxes
    execute(a.database, "INSERT INTO user_prompts SELECT 900, 1, 'c', 1, 'p', '', 1, 1, 'd', 'l', 1")
    execute(a.database, "DELETE FROM user_prompts WHERE id = 900")
    await rollback_guard.note(a.lane, deadline=soon())
    remove(a)
    assert (await a.pull()).outcome is PullOutcome.INSTALLED
    assert not await rollback_guard.heal(a.lane, progress=ProgressTracker(), deadline=soon())
    assert (await a.push()).outcome is PushOutcome.UNCHANGED


async def test_a_kill_while_it_is_healed_deletes_nothing(
    boxes: tuple[Box, Box], monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = boxes
    put_back(a)

    async def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("membridge.snapshot.pull.pull", killed)
        with pytest.raises(KeyboardInterrupt):
            await rollback_guard.heal(a.lane, progress=ProgressTracker(), deadline=soon())
    # The next life of the node begins with a worker that wrote on.
    add_observation(a.database, "since")
    await rollback_guard.heal(a.lane, progress=ProgressTracker(), deadline=soon())
    await a.push()
    await b.pull()
    assert {"pushed", "since"} <= titles(b.database)
    assert memory_rows(a.database) == memory_rows(b.database)
