"""Random histories of merges, replacements and restores: each backup is exactly the state before its write."""

import asyncio
import random
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from membridge.claudemem.connection import open_live
from membridge.merge.former import RawRows, is_same
from membridge.snapshot import backup_files, backups, undo_chain
from membridge.snapshot.backup_retention import BackupPolicy
from schemas.commits import RowChange
from tests.fixtures.backed_up import Content, Machine, content_of, machine
from tests.fixtures.lanes import soon

STEPS = st.lists(st.sampled_from(["merge", "merge", "merge", "replace", "restore"]), min_size=2, max_size=7)


async def play(one: Machine, steps: list[str], choices: random.Random) -> dict[str, Content]:
    """Carry out a history; return the state before each write by the id of its backup."""
    states: dict[str, Content] = {}
    for step in steps:
        one.learn(one.other, choices)
        before = content_of(one.database)
        known = {backup.id for backup in backups.listed(one.lane)}
        if step == "merge":
            one.merge()
        elif step == "replace":
            one.replace()
        elif known:
            await one.restore(choices.choice(sorted(known)))
        for backup in backups.listed(one.lane):
            states.setdefault(backup.id, before)
    return states


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=STEPS, seed=st.integers(0, 10**6))
def test_each_backup_is_exactly_the_state_before_its_write(steps: list[str], seed: int) -> None:
    choices = random.Random(seed)
    with TemporaryDirectory() as folder, machine(Path(folder) / "m", seed=seed) as one:
        states = asyncio.run(play(one, steps, choices))
        listed = [backup.id for backup in backups.listed(one.lane)]
        assert set(listed) == set(states)
        for name in choices.sample(listed, len(listed)):
            asyncio.run(one.restore(name))
            assert content_of(one.database) == states[name], name


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=STEPS, seed=st.integers(0, 10**6), most=st.integers(1, 4))
def test_whatever_pruning_leaves_can_be_restored_exactly(steps: list[str], seed: int, most: int) -> None:
    choices = random.Random(seed)
    policy = BackupPolicy(max_count=most, max_disk_percent=100)
    with TemporaryDirectory() as folder, machine(Path(folder) / "m", seed=seed, policy=policy) as one:
        states = asyncio.run(play(one, steps, choices))
        listed = [backup.id for backup in backups.listed(one.lane)]
        # A restore keeps the backup that it restores until the next write.
        assert len(listed) <= max(2, most) + ("restore" in steps)
        for name in choices.sample(listed, len(listed)):
            if name in {backup.id for backup in backups.listed(one.lane)}:
                asyncio.run(one.restore(name))
                assert content_of(one.database) == states[name], name


async def beside_a_worker(steps: list[str], seed: int, folder: Path) -> None:
    """Play a history in which claude-mem writes too; restore a backup row by row and look at every row."""
    choices = random.Random(seed)
    with machine(folder / "m", seed=seed) as one:
        for step in steps:
            one.learn(one.other, choices)
            one.learn(one.database, choices)
            if step == "merge":
                one.merge()
            elif step == "replace":
                one.replace()
            one.learn(one.database, choices)
        own = backup_files.own(one.lane.backups)
        chosen = choices.choice(own[1:])
        way = undo_chain.way_to(chosen, own, one.database, deadline=soon())
        assert way is not None
        assert way.base is None
        before, named = rows_of_all(one), {(table, rowid) for table, rowid in way.rows}
        done = await one.restore(chosen.id)
        after, kept = rows_of_all(one), 0
        for key in before.keys() | after.keys():
            if key not in named:
                assert after.get(key) == before.get(key), key
        with open_live(one.database, deadline=soon()) as connection:
            rows = RawRows(connection)
            kept = sum(not is_same(rows.read(key), former.content) for key, former in way.rows.items())
        assert kept == sum(counts.get(RowChange.KEPT, 0) for counts in done.changes.counts.values())
        # And back again.
        assert done.saved is not None
        content_of(one.database)
        await one.restore(done.saved.stem)
        assert rows_of_all(one) == before


def rows_of_all(one: Machine) -> dict[tuple[str, object], tuple[object, ...]]:
    """Return each row by its table and rowid."""
    content = content_of(one.database)
    return {(table, row[0]): row for table, rows in content.items() if " " not in table for row in rows}


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    steps=st.lists(st.sampled_from(["merge", "merge", "replace", "nothing"]), min_size=1, max_size=4),
    seed=st.integers(0, 10**6),
)
def test_beside_a_worker_every_row_is_as_it_was_or_claude_mems(steps: list[str], seed: int) -> None:
    with TemporaryDirectory() as folder:
        asyncio.run(beside_a_worker(["merge", *steps, "merge"], seed, Path(folder)))
