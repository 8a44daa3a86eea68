"""Backups: taken right before a write, never twice of one state, and never driven out by an operation that fails."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from membridge.aio.deadline import Deadline
from membridge.claudemem import overwrite
from membridge.claudemem.memory import memory_rows
from membridge.commits import history
from membridge.commits.progress import ProgressTracker
from membridge.errors import (
    CorruptObjectError,
    DatabaseBusyError,
    DeadlineExceededError,
    DiskFullError,
    MembridgeError,
    StoreUnavailableError,
)
from membridge.merge.conflicts import Journal, Lost
from membridge.objectstore.protocol import Progress
from membridge.snapshot import backups, pull, push, reinstate
from membridge.snapshot.backup_retention import BackupPolicy
from membridge.snapshot.lane import Lane
from tests.faults.store import FaultyStore
from tests.fixtures.databases import add_observation, execute, make_database
from tests.fixtures.lanes import Box, MakeBox, soon

pytestmark = pytest.mark.parametrize("lane_store", ["jetstream"], indirect=True)


@dataclass(slots=True)
class SilentStore(FaultyStore):
    """Answers everything but downloads."""

    async def download(
        self, key: str, target: Path, *, start: int = 0, deadline: Deadline, progress: Progress | None = None
    ) -> None:
        del target, start, deadline, progress
        raise StoreUnavailableError(f"no answer for {key}")


class FullJournal(Journal):
    """A journal on a full disk: the merge that has a conflict to write down fails, and is tried again."""

    def add_conflicts(self, losers: Iterable[Lost]) -> int:
        raise DiskFullError(f"no room for {len(list(losers))} conflicts")


async def behind(make_box: MakeBox) -> tuple[Box, Box]:
    """Return two nodes, of which b has three backups, and lacks a commit of a that edited a row that b edited too."""
    a, b = make_box("a"), make_box("b")
    make_database(a.database)
    await a.push()
    await b.pull()
    for number in range(3):
        backups.take(b.lane, "merge", deadline=soon())
        add_observation(b.database, f"of b {number}")
    for box in (a, b):
        execute(box.database, f"UPDATE observations SET subtitle = 'of {box.lane.node}' WHERE id = 1")
    await a.push()
    return a, b


async def fail(lane: Lane, error: type[MembridgeError]) -> None:
    with pytest.raises(error):
        await pull.pull(lane, replace=False, progress=ProgressTracker(), deadline=soon())


async def test_sixty_pulls_that_fail_leave_the_older_backups_alone_and_take_at_most_one(make_box: MakeBox) -> None:
    a, b = await behind(make_box)
    before, memory = backups.listed(b.lane), memory_rows(b.database)
    assert len(before) == 3
    few = replace(b.lane, policy=replace(b.lane.policy, backups=BackupPolicy(max_count=4)))
    for _ in range(20):
        await fail(replace(few, store=SilentStore(few.store)), StoreUnavailableError)
    head = await history.resolve(a.lane, "head", deadline=soon())
    assert head is not None
    assert head.object is not None
    whole = await few.store.get(head.object.key, deadline=soon())
    await few.store.put(head.object.key, whole[:-1] + b"?", if_absent=False, deadline=soon())
    for _ in range(20):
        await fail(few, CorruptObjectError)
    assert backups.listed(b.lane) == before
    await few.store.put(head.object.key, whole, if_absent=False, deadline=soon())
    full = FullJournal(b.lane.folder / "full.db")
    try:
        for _ in range(20):
            await fail(replace(few, journal=full), DiskFullError)
    finally:
        full.close()
    taken = backups.listed(b.lane)
    assert taken[1:] == before
    assert memory_rows(Path(taken[0].path)) == memory
    pulled = await pull.pull(few, replace=False, progress=ProgressTracker(), deadline=soon())
    assert pulled.conflicts == 1
    assert [one.path for one in backups.listed(b.lane) if one not in before] == [taken[0].path]


async def test_a_pull_that_has_nothing_to_write_takes_no_backup(make_box: MakeBox) -> None:
    a, b = make_box("a"), make_box("b")
    make_database(a.database)
    await a.push()
    await b.pull()
    add_observation(b.database, "of b alone")
    await push.commit_epoch(a.lane, epoch=2, deadline=soon())
    execute(a.database, "UPDATE observations SET relevance_count = 5")
    pulled = await b.pull()
    assert (pulled.seq, pulled.unsynced, pulled.backup) == (2, 2, None)
    replaced = await b.pull(replace=True)
    assert replaced.deleted == 2
    assert [one.reason for one in backups.listed(b.lane)] == ["replace"]
    assert (await b.pull(replace=True)).backup is None


async def test_no_state_is_kept_twice_and_none_is_left_out(make_box: MakeBox) -> None:
    a = make_box("a")
    make_database(a.database)
    first = backups.take(a.lane, "merge", deadline=soon())
    execute(a.database, "PRAGMA wal_checkpoint(TRUNCATE)")
    assert backups.take(a.lane, "restore", deadline=soon()) == first
    # Nothing but a machine's own column changed, by a byte: that is another state all the same.
    execute(a.database, "UPDATE observations SET relevance_count = 1 WHERE id = 1")
    second = backups.take(a.lane, "restore", deadline=soon())
    assert [one.path for one in backups.listed(a.lane)] == [str(second), str(first)]
    assert [one.id for one in backups.listed(a.lane)] == [second.stem, first.stem]


async def test_a_backup_that_breaks_off_leaves_nothing_half(make_box: MakeBox) -> None:
    a = make_box("a")
    make_database(a.database)
    with pytest.raises(DeadlineExceededError):
        backups.take(a.lane, "merge", deadline=Deadline.after(0.0))
    assert list(a.lane.backups.iterdir()) == []


async def test_a_file_that_a_person_put_there_is_listed_and_stays(make_box: MakeBox) -> None:
    a = make_box("a")
    make_database(a.database)
    lane = replace(a.lane, policy=replace(a.lane.policy, backups=BackupPolicy(max_count=1)))
    kept = make_database(lane.backups / "before-the-move.db")
    for number in range(3):
        backups.take(lane, "merge", deadline=soon())
        add_observation(a.database, f"news {number}")
    found = {one.id for one in backups.listed(lane)}
    assert len(found) == 2
    assert kept.stem in found


@pytest.mark.parametrize(
    ("policy", "stamp"),
    [(BackupPolicy(max_count=1), None), (BackupPolicy(), "20200101T000000.000000Z")],
    ids=["the oldest of a full bound", "too old"],
)
async def test_the_backup_that_is_put_back_is_never_the_one_that_has_to_go(
    make_box: MakeBox, monkeypatch: pytest.MonkeyPatch, policy: BackupPolicy, stamp: str | None
) -> None:
    a = make_box("a")
    make_database(a.database)
    wanted = memory_rows(a.database)
    chosen = backups.take(a.lane, "merge", deadline=soon())
    if stamp is not None:
        chosen = chosen.rename(chosen.with_name(f"{stamp}-merge.db"))
    lane = replace(a.lane, policy=replace(a.lane.policy, backups=policy))

    def busy(*_: object, **__: object) -> None:
        raise DatabaseBusyError("another program writes")

    add_observation(a.database, "before the try that fails")
    with monkeypatch.context() as patched:
        patched.setattr(overwrite, "overwrite", busy)
        with pytest.raises(DatabaseBusyError):
            await reinstate.put_back(lane, chosen.stem, progress=ProgressTracker(), deadline=soon())
    assert memory_rows(chosen) == wanted

    add_observation(a.database, "before the try that does not")
    done = await reinstate.put_back(lane, chosen.stem, progress=ProgressTracker(), deadline=soon())
    assert memory_rows(a.database) == wanted
    assert memory_rows(chosen) == wanted
    assert done.saved is not None
    assert len(memory_rows(done.saved)["observations"]) == len(wanted["observations"]) + 2
