"""A change of the live database is reported because the operating system says so, whatever became of its files."""

import asyncio
import os
import shutil
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest

from membridge.claudemem import change_events
from membridge.claudemem.change_events import changes, places
from membridge.claudemem.changes import ChangeWatcher
from membridge.system import event_source, file_events
from membridge.system.file_events import Names, Places
from tests.fixtures.databases import add_observation, connect, execute, make_database
from tests.fixtures.pace import pause

#: Seconds within which a change is seen, on a machine that is busy; far less than a look without an event takes.
SOON = 20.0
POLLED = "database looked at twice a second, not by events"


class Seen:
    """The changes that were reported of one database."""

    def __init__(self, path: Path) -> None:
        self._path, self._came = path, asyncio.Event()
        self.count = 0

    async def run(self) -> None:
        async with aclosing(changes(self._path)) as seen:
            async for _ in seen:
                self.count += 1
                self._came.set()

    async def after(self, act: Callable[[], object]) -> None:
        """Wait for a change that is reported after `act` was done."""
        self._came.clear()
        await asyncio.to_thread(act)
        async with asyncio.timeout(SOON):
            await self._came.wait()


@asynccontextmanager
async def watching(path: Path) -> AsyncGenerator[Seen]:
    """Watch `path` during the body, and wait until it is watched."""
    seen, looks = Seen(path), Looks()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ChangeWatcher, "changed", looks.counted(ChangeWatcher.changed))
        async with asyncio.TaskGroup() as group:
            task = group.create_task(seen.run())
            # The first is the watcher's own, the second is of the events.
            await looks.reach(2)
            yield seen
            task.cancel()


class Looks:
    """Counts the looks at the database."""

    def __init__(self) -> None:
        self.count = 0

    def counted(self, look: Callable[[ChangeWatcher], bool]) -> Callable[[ChangeWatcher], bool]:
        def counted(watcher: ChangeWatcher) -> bool:
            try:
                return look(watcher)
            finally:
                self.count += 1

        return counted

    async def reach(self, count: int) -> None:
        async with asyncio.timeout(SOON):
            while self.count < count:
                await pause()

    async def quiet(self, *, pauses: int) -> None:
        """Wait until no look came for so long."""
        async with asyncio.timeout(SOON):
            while True:
                before = self.count
                for _ in range(pauses):
                    await pause()
                if self.count == before:
                    return


@pytest.fixture(autouse=True)
def only_events(monkeypatch: pytest.MonkeyPatch) -> None:
    """No look comes but because of an event."""
    monkeypatch.setattr(change_events, "LOOK_EVERY", 3_600.0)
    monkeypatch.setattr(change_events, "POLL_EVERY", 3_600.0)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the log says, each line with its reason."""
    lines: list[str] = []

    class Log:
        def info(self, event: str, **fields: object) -> None:
            lines.append(f"{event}: {fields.get('reason', '')}")

        warning = info

        def debug(self, event: str, **fields: object) -> None:
            """Say nothing: a reason that repeats."""

    monkeypatch.setattr(change_events, "log", Log())
    return lines


async def test_each_commit_of_another_program_is_seen(claude_mem_copy: Path) -> None:
    async with watching(claude_mem_copy) as seen:
        for title in "abc":
            await seen.after(lambda title=title: add_observation(claude_mem_copy, title))


async def test_a_wal_that_is_cut_and_begins_anew_is_watched_on(claude_mem_copy: Path) -> None:
    def cut() -> None:
        execute(claude_mem_copy, "PRAGMA wal_checkpoint(TRUNCATE)")
        assert not Path(f"{claude_mem_copy}-wal").stat().st_size
        add_observation(claude_mem_copy, "into a new WAL")

    async with watching(claude_mem_copy) as seen:
        await seen.after(lambda: add_observation(claude_mem_copy, "a"))
        await seen.after(cut)
        await seen.after(lambda: add_observation(claude_mem_copy, "b"))


async def test_a_database_is_seen_when_it_appears_goes_and_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "not" / "there" / "yet" / "claude-mem.db"
    async with watching(path) as seen:
        await seen.after(lambda: make_database(path))
        await seen.after(lambda: shutil.rmtree(tmp_path / "not"))
        await seen.after(lambda: make_database(path))
        await seen.after(lambda: add_observation(path, "on"))


async def test_a_replaced_file_is_seen_and_watched_on(claude_mem_copy: Path, tmp_path: Path) -> None:
    other = make_database(tmp_path / "other" / "claude-mem.db")
    async with watching(claude_mem_copy) as seen:
        await seen.after(lambda: other.replace(claude_mem_copy))
        await seen.after(lambda: execute(claude_mem_copy, "INSERT INTO sync_state VALUES ('a', 'b')"))


async def test_a_folder_that_is_a_link_may_be_pointed_elsewhere(tmp_path: Path) -> None:
    make_database(tmp_path / "one" / "claude-mem.db")
    second = make_database(tmp_path / "two" / "claude-mem.db")
    link, fresh = tmp_path / "link", tmp_path / "fresh"
    link.symlink_to("one")
    fresh.symlink_to("two")
    async with watching(link / "claude-mem.db") as seen:
        await seen.after(lambda: add_observation(tmp_path / "one" / "claude-mem.db", "one"))
        await seen.after(lambda: fresh.replace(link))
        await seen.after(lambda: add_observation(second, "two"))


async def test_a_folder_that_was_renamed_is_not_watched_any_more(tmp_path: Path) -> None:
    path = make_database(tmp_path / "home" / "claude-mem.db")
    async with watching(path) as seen:
        await seen.after(lambda: (tmp_path / "home").rename(tmp_path / "old"))
        await seen.after(lambda: make_database(path))
        await seen.after(lambda: add_observation(path, "new"))


async def test_a_commit_that_shows_later_than_its_last_write_is_seen(
    claude_mem_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A writer that forces its WAL to a slow disk writes last what others see only seconds later."""
    async with watching(claude_mem_copy) as seen:
        look, blind = ChangeWatcher.changed, [True] * 4
        monkeypatch.setattr(ChangeWatcher, "changed", lambda watcher: not (blind and blind.pop()) and look(watcher))
        await seen.after(lambda: add_observation(claude_mem_copy, "forced to disk"))
        assert not blind


async def test_a_locked_database_is_looked_at_again(claude_mem_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(change_events, "AFTER_EVENT", (0.05,))
    connection = connect(claude_mem_copy)
    connection.execute("PRAGMA journal_mode = DELETE").fetchall()
    async with watching(claude_mem_copy) as seen:
        connection.execute("BEGIN EXCLUSIVE; INSERT INTO sync_state VALUES ('a', 'b')")
        looks, locked = Looks(), ChangeWatcher.changed
        monkeypatch.setattr(ChangeWatcher, "changed", looks.counted(locked))
        await looks.reach(5)
        await seen.after(lambda: connection.execute("COMMIT"))
    connection.close()


async def test_nothing_looks_at_a_database_that_nothing_writes(
    claude_mem_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(change_events, "AFTER_EVENT", (0.05,))
    async with watching(claude_mem_copy) as seen:
        await seen.after(lambda: add_observation(claude_mem_copy, "last"))
        looks = Looks()
        monkeypatch.setattr(ChangeWatcher, "changed", looks.counted(ChangeWatcher.changed))
        await looks.quiet(pauses=10)
        before = looks.count
        for number in range(20):
            (claude_mem_copy.parent / "another-file").write_text(str(number))
            await pause()
        assert looks.count == before


@pytest.mark.parametrize("number", [28, 24], ids=["max_user_watches", "max_user_instances"])
async def test_where_events_run_out_the_database_is_looked_at(
    claude_mem_copy: Path, monkeypatch: pytest.MonkeyPatch, said: list[str], number: int
) -> None:
    monkeypatch.setattr(change_events, "POLL_EVERY", 0.05)
    monkeypatch.setattr(event_source, "TRY_AGAIN", 0.5)
    open_events, refused = file_events.open_events, [True]

    def exhausted(wanted: Places) -> file_events.FileEvents:
        if refused:
            raise OSError(number, os.strerror(number))
        return open_events(wanted)

    monkeypatch.setattr(file_events, "open_events", exhausted)
    async with watching(claude_mem_copy) as seen:
        await seen.after(lambda: add_observation(claude_mem_copy, "polled"))
        assert said == [f"{POLLED}: [Errno {number}] {os.strerror(number)}"]
        refused.clear()
        async with asyncio.timeout(SOON):
            while "database watched by events again: " not in said:
                await pause()
        monkeypatch.setattr(change_events, "POLL_EVERY", 3_600.0)
        await seen.after(lambda: add_observation(claude_mem_copy, "by an event"))


async def test_a_change_without_an_event_ends_the_trust_in_events(
    claude_mem_copy: Path, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    """As on a file system that another machine writes and that does not look like one."""
    monkeypatch.setattr(change_events, "AFTER_EVENT", ())
    monkeypatch.setattr(change_events._Events, "look_soon", lambda _: None)
    monkeypatch.setattr(change_events, "LOOK_EVERY", 0.2)
    monkeypatch.setattr(change_events, "POLL_EVERY", 0.05)
    silent = make_database(claude_mem_copy.parent / "silent" / "claude-mem.db")
    monkeypatch.setattr(change_events, "places", lambda _: {silent.parent: Names(frozenset({silent.name}))})
    async with watching(claude_mem_copy) as seen:
        await seen.after(lambda: add_observation(claude_mem_copy, "unheard"))
        monkeypatch.setattr(change_events, "LOOK_EVERY", 3_600.0)
        await seen.after(lambda: add_observation(claude_mem_copy, "polled"))
    assert said == [f"{POLLED}: it changed without an event"]


async def test_no_descriptor_stays_open(claude_mem_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[file_events.FileEvents] = []
    open_events = file_events.open_events

    def noted(wanted: Places) -> file_events.FileEvents:
        opened.append(open_events(wanted))
        return opened[-1]

    monkeypatch.setattr(file_events, "open_events", noted)
    async with watching(claude_mem_copy) as seen:
        descriptor = opened[-1].fileno()
        assert os.get_blocking(descriptor) is False
        await seen.after(lambda: add_observation(claude_mem_copy, "x"))
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.read(descriptor, 1)


def test_a_link_to_itself_ends(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to("loop")

    assert places(loop / "claude-mem.db")[tmp_path].entries == {"loop"}
