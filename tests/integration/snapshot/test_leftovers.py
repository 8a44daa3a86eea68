"""What an attempt leaves on the disk: nothing as large as the database, whatever it ended in."""

import os
import shutil
from pathlib import Path

import pytest

from membridge.aio.deadline import Deadline
from membridge.commits.progress import ProgressTracker
from membridge.errors import DatabaseBusyError, ShrinkRefusedError
from membridge.snapshot import backups, pull
from schemas.snapshot import PushOutcome
from tests.fixtures.databases import add_observation, connect, execute, make_database
from tests.fixtures.lanes import Box, MakeBox


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def mirror_of(box: Box) -> list[str]:
    path = box.lane.mirror.path()
    assert path is not None
    return sorted([path.name, "position.json"])


async def test_a_push_that_has_nothing_to_send_keeps_no_copy(make_box: MakeBox) -> None:
    a = make_box("a")
    make_database(a.database)
    await a.push()
    assert (await a.push()).outcome is PushOutcome.UNCHANGED
    assert files_in(a.lane.mirror.directory) == mirror_of(a)


async def test_a_push_that_is_refused_keeps_no_copy(make_box: MakeBox) -> None:
    a = make_box("a")
    make_database(a.database)
    await a.push()
    execute(a.database, "DELETE FROM observations")
    with pytest.raises(ShrinkRefusedError):
        await a.push()
    assert files_in(a.lane.mirror.directory) == mirror_of(a)


async def test_a_pull_that_fails_keeps_nothing_it_fetched(make_box: MakeBox) -> None:
    a, b = make_box("a"), make_box("b")
    make_database(a.database)
    await a.push()
    await b.pull()
    add_observation(a.database, "news")
    await a.push()
    writer = connect(b.database)
    writer.execute("BEGIN IMMEDIATE")
    try:
        with pytest.raises(DatabaseBusyError):
            await pull.pull(b.lane, replace=False, progress=ProgressTracker(), deadline=Deadline.after(2.0))
    finally:
        writer.close()
    assert files_in(b.lane.mirror.directory) == mirror_of(b)


async def test_a_backup_that_was_killed_makes_room_for_the_next(make_box: MakeBox) -> None:
    a = make_box("a")
    make_database(a.database)
    backups.take(a.lane, "merge", deadline=Deadline.after(10.0))
    for name in ("20260101T000000.000000Z-merge.part", "20260101T000000.000000Z-merge.part-journal"):
        (a.lane.backups / name).write_bytes(b"half")
    add_observation(a.database, "news")
    backups.take(a.lane, "merge", deadline=Deadline.after(10.0))
    assert len(backups.listed(a.lane)) == 2
    ids = [one.id for one in reversed(backups.listed(a.lane))]
    assert files_in(a.lane.backups) == [f"{name}.{kind}" for name in ids for kind in ("db", "undo")]


@pytest.mark.parametrize("verb", ["push", "pull"])
async def test_the_second_name_that_a_killed_install_left_goes_with_the_next_use(make_box: MakeBox, verb: str) -> None:
    a = make_box("a")
    make_database(a.database)
    await a.push()
    staged = a.database.with_name(".claude-mem.db.membridge-install")
    os.link(a.database, staged)
    shutil.copyfile(os.devnull, Path(f"{staged}-journal"))
    await getattr(a, verb)()
    assert not [name for name in files_in(a.database.parent) if name.startswith(".")]
