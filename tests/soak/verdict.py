"""What must hold after a soak: the same memory everywhere, nothing lost, one primary for each epoch."""

import asyncio
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from membridge.aio.deadline import Deadline
from membridge.claudemem.memory import memory_rows
from membridge.commits import layout
from membridge.objectstore.protocol import ObjectStore
from schemas.identity import canonical_id
from schemas.snapshot import SnapshotRecord
from schemas.wire import decode
from tests.soak.cast import PROJECT, Actor


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found; a soak passes when `failures` is empty."""

    saved: int
    commits: int
    epochs: int
    seconds_to_agree: float
    failures: tuple[str, ...]


async def judge(actors: list[Actor], store: ObjectStore, *, seconds: float) -> Verdict:
    """Wait until all nodes agree, at most `seconds`, and look for what was lost."""
    clock = asyncio.get_running_loop()
    began = clock.time()
    failures: list[str] = []
    saved = {title for actor in actors for title in actor.saved}
    while not await asyncio.to_thread(_agree, actors, saved):
        if clock.time() - began > seconds:
            failures += await asyncio.to_thread(_differences, actors)
            break
        await asyncio.sleep(0.2)
    agreed = clock.time() - began
    for actor in actors:
        failures += await asyncio.to_thread(_damage, actor, saved)
    records = await _records(store)
    failures += _disorder(records)
    epochs = {record.epoch for record in records}
    return Verdict(len(saved), len(records), len(epochs), round(agreed, 1), tuple(failures))


def _titles(database: Path) -> set[str]:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=10)) as connection:
        return {row[0] for row in connection.execute("SELECT title FROM observations WHERE project = 'demo'")}


def _agree(actors: list[Actor], saved: set[str]) -> bool:
    if not all(actor.machine.database.exists() for actor in actors):
        return False
    first, *others = (memory_rows(actor.machine.database) for actor in actors)
    return all(other == first for other in others) and saved <= _titles(actors[0].machine.database)


def _differences(actors: list[Actor]) -> list[str]:
    found = {actor.name: _titles(actor.machine.database) for actor in actors if actor.machine.database.exists()}
    together = set[str]().union(*found.values())
    lacking = {name: sorted(together - titles) for name, titles in found.items() if together - titles}
    told = [f"{name} lacks {titles[:5]} …" for name, titles in lacking.items()]
    return told or ["the nodes differ in something other than titles"]


def _damage(actor: Actor, saved: set[str]) -> list[str]:
    if not actor.machine.database.exists():
        return [f"{actor.name} has no database:\n{actor.machine.log.read_text(encoding='utf-8')[-3000:]}"]
    with closing(sqlite3.connect(actor.machine.database, timeout=10)) as connection:
        sound = connection.execute("PRAGMA integrity_check").fetchone()[0]
        foreign = connection.execute("PRAGMA foreign_key_check").fetchall()
        twice = connection.execute(
            "SELECT title, count(*) FROM observations WHERE project = 'demo' GROUP BY title HAVING count(*) > 1"
        ).fetchall()
    lost = saved - _titles(actor.machine.database)
    found = [] if sound == "ok" else [f"{actor.name}: {sound}"]
    found += [f"{actor.name}: foreign keys {foreign[:3]}"] if foreign else []
    found += [f"{actor.name}: twice {twice[:3]}"] if twice else []
    return found + ([f"{actor.name} lost {sorted(lost)[:5]} of {len(lost)}"] if lost else [])


async def _records(store: ObjectStore) -> list[SnapshotRecord]:
    project, deadline = canonical_id(PROJECT), Deadline.after(60.0)
    keys = [info.key async for info in store.list(layout.commits(project), deadline=deadline)]
    return [decode(await store.get(key, deadline=deadline), SnapshotRecord) for key in keys]


def _disorder(records: list[SnapshotRecord]) -> list[str]:
    found: list[str] = []
    leaders: dict[int, str] = {}
    for index, record in enumerate(records):
        if record.seq != records[0].seq + index:
            found.append(f"commit {record.seq} does not follow")
        if index and record.epoch < records[index - 1].epoch:
            found.append(f"seq {record.seq} has epoch {record.epoch} after {records[index - 1].epoch}")
        if index and record.parent_sha256 not in {None, records[index - 1].sha256}:
            found.append(f"seq {record.seq} does not build on its parent")
        if leaders.setdefault(record.epoch, record.node) != record.node:
            found.append(f"epoch {record.epoch} has two primaries: {leaders[record.epoch]} and {record.node}")
    return found
