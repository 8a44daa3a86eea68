"""The reader publishes in order, deletes after the event is stored, and keeps what cannot be published."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from membridge.aio.tasks import background
from membridge.errors import BusUnavailableError, UnknownProjectError
from membridge.hooks import folder_watch, spool
from membridge.hooks.event_file import HookEvent
from membridge.hooks.figures import figures
from membridge.hooks.paths import HookPaths, hook_paths
from membridge.hooks.reader import SpoolReader, Taken
from membridge.system import file_events
from schemas.identity import ProjectId, canonical_id
from tests.fixtures.hooks import leave, leave_bytes, waiting
from tests.fixtures.pace import pause


class Store:
    """A sink that keeps what it takes; `away` are the projects that it cannot reach."""

    def __init__(self) -> None:
        self.stored: list[tuple[str, str]] = []
        self.ids: list[str] = []
        self.away: set[ProjectId] = set()
        self.tries = 0
        self.projects = {canonical_id(name): name for name in ("one", "two")}

    def project_of(self, event: HookEvent) -> ProjectId:
        found = canonical_id(event.project or "one")
        if found not in self.projects:
            raise UnknownProjectError(f"no project {event.project}")
        return found

    async def take(self, taken: Taken, secret: bytes) -> None:
        self.tries += 1
        if taken.project in self.away:
            raise BusUnavailableError("NATS is away")
        self.stored.append((self.projects[taken.project], taken.event.texts.get("n", "")))
        self.ids.append(taken.event.identity(taken.project, secret))

    def reaches(self) -> int:
        return len(self.projects)


@pytest.fixture
def paths(tmp_path: Path) -> HookPaths:
    return hook_paths(tmp_path / "state")


async def until(wanted: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not wanted():
            await pause()


async def emptied(paths: HookPaths, store: Store) -> None:
    """Run a reader until nothing waits."""
    async with background() as group:
        group.create_task(SpoolReader(paths, store).run())
        await until(lambda: waiting(paths) == [])


async def test_events_are_published_in_their_order_and_their_files_deleted(paths: HookPaths) -> None:
    for number in range(50):
        leave(paths, "Stop", n=str(number))
    store = Store()
    await emptied(paths, store)
    assert store.stored == [("one", str(number)) for number in range(50)]
    assert len(set(store.ids)) == 50


@pytest.mark.parametrize("events", [True, False])
async def test_an_event_that_comes_while_the_reader_waits_is_published(
    paths: HookPaths, monkeypatch: pytest.MonkeyPatch, events: bool
) -> None:
    def none(places: file_events.Places) -> file_events.FileEvents:
        raise OSError("no watches left")

    if not events:
        monkeypatch.setattr(file_events, "open_events", none)
        monkeypatch.setattr(folder_watch, "POLL_EVERY", 0.05)
    store = Store()
    async with background() as group:
        group.create_task(SpoolReader(paths, store).run())
        for number in range(3):
            await until(paths.new.is_dir)
            leave(paths, "Stop", n=str(number))
            await until(lambda number=number: len(store.stored) == number + 1 and waiting(paths) == [])


async def test_what_cannot_be_published_waits_and_does_not_hold_up_another_project(paths: HookPaths) -> None:
    store = Store()
    store.away = {canonical_id("one")}
    for number in range(3):
        leave(paths, "Stop", "one", n=str(number))
        leave(paths, "Stop", "two", n=str(number))
    async with background() as group:
        group.create_task(SpoolReader(paths, store).run())
        await until(lambda: len(waiting(paths)) == 3)
        assert store.stored == [("two", str(number)) for number in range(3)]
        store.away = set()
        await until(lambda: waiting(paths) == [])
    assert store.stored[3:] == [("one", str(number)) for number in range(3)]


async def test_while_no_project_can_be_reached_only_one_event_of_each_is_tried(paths: HookPaths) -> None:
    store = Store()
    store.away = set(store.projects)
    for number in range(500):
        leave(paths, "Stop", "two" if number else "one")
    async with background() as group:
        group.create_task(SpoolReader(paths, store).run())
        await until(lambda: store.tries >= 2)
    assert store.tries <= 4
    assert len(waiting(paths)) == 500


async def test_of_too_many_that_wait_the_oldest_are_dropped(paths: HookPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(spool.trim.__kwdefaults__, "most_files", 4)
    store = Store()
    store.away = set(store.projects)
    for number in range(6):
        leave(paths, "Stop", n=str(number))
        leave(paths, "Stop", "two", n=str(number))
    async with background() as group:
        group.create_task(SpoolReader(paths, store).run())
        await until(lambda: len(waiting(paths)) == 4)
        store.away = set()
        await until(lambda: waiting(paths) == [])
    assert store.stored == [("one", "4"), ("two", "4"), ("one", "5"), ("two", "5")]
    assert figures(paths).dropped == 8


async def test_damaged_files_and_those_of_unknown_projects_are_set_aside_and_hold_up_nothing(
    paths: HookPaths, caplog: pytest.LogCaptureFixture
) -> None:
    leave_bytes(paths, b"not an event")
    leave(paths, "Stop", "unknown")
    leave(paths, "Stop", n="sound")
    store = Store()
    await emptied(paths, store)
    assert store.stored == [("one", "sound")]
    assert len(list(paths.damaged.iterdir())) == 2


async def test_a_stored_event_whose_file_cannot_be_removed_is_not_published_again(
    paths: HookPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave(paths, "Stop", n="1")
    store, remove, refused = Store(), spool.remove, [0]

    def fails_twice(where: HookPaths, name: str) -> None:
        refused[0] += 1
        if refused[0] <= 2:
            raise PermissionError(1, "not permitted", name)
        remove(where, name)

    monkeypatch.setattr(spool, "remove", fails_twice)
    reader = SpoolReader(paths, store)
    for _ in range(2):
        with suppress(Exception):
            await reader.run()
    async with background() as group:
        group.create_task(reader.run())
        await until(lambda: waiting(paths) == [])
    assert store.stored == [("one", "1")]
