"""Random histories of merges, replacements and restores: each backup is exactly the state before its write."""

import asyncio
import random
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from membridge.snapshot import backups
from membridge.snapshot.backup_retention import BackupPolicy
from tests.fixtures.backed_up import Content, Machine, content_of, machine

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
