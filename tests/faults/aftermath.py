"""What must hold after a process was killed or its disk was full: looked at by a node that had no part in it."""

import shutil
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from membridge.aio import threads
from membridge.claudemem.memory import memory_rows
from membridge.commits import fetch, heads
from membridge.commits.chain import Position
from membridge.commits.progress import ProgressTracker
from membridge.merge.memory_file import MemoryFile
from tests.faults.scenarios import Stage, converge
from tests.faults.template import SNAPSHOT, leftovers, orphans
from tests.faults.world import Node, soon
from tests.fixtures.databases import rows_of

Memory = dict[str, set[bytes]]


@dataclass(frozen=True, slots=True)
class Seen:
    """The memory of node a's database and of the head, and how many conflicts a's journal holds."""

    live: Memory
    head: Memory
    conflicts: int = 0


async def look(stage: Stage) -> Seen:
    """Read what a and the head know; AssertionError when something is damaged."""
    node = stage.node("a")
    live = await threads.run(_live, node.database)
    position = node.lane.mirror.position()
    if position is not None:
        mirror = node.lane.mirror.path()
        assert mirror is not None
        await threads.run(_check_mirror, mirror, position)
    counts = node.lane.journal.counts()
    assert counts.quarantined == 0
    return Seen(live, await head_memory(stage), counts.conflicts)


async def head_memory(stage: Stage) -> Memory:
    """Restore the head from its chain into a fresh folder; return what it knows."""
    known = await heads.read(stage.node("b").lane, deadline=soon())
    if known is None:
        return {}
    folder = stage.folder / "observer"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    lane = replace(stage.node("b").lane, folder=folder)
    fetched = await fetch.fetch(lane, known.record, progress=ProgressTracker(), deadline=soon())
    assert fetched.staged is not None
    return await threads.run(_filled, fetched.staged)


def _check_mirror(path: Path, position: Position) -> None:
    """Raise when the mirror is neither what its position says nor the state that the next `settle` makes up for."""
    with closing(MemoryFile(path, deadline=soon())) as memory:
        memory.check()
        noted = memory.position()
        moved = msgspec.json.decode(noted, type=Position).sha256 if noted else position.sha256
        assert memory.digest() in {position.sha256, moved}, "the mirror is not what its position says"


def between(what: str, before: Memory, after: Memory, found: Memory) -> None:
    """Raise AssertionError unless `found` is a state on the way from `before` to `after`, row by row."""
    for table in before | after | found:
        was, will, now = before.get(table, set()), after.get(table, set()), found.get(table, set())
        assert now >= (was & will), f"{what} lost of {table}: {sorted((was & will) - now)[:2]}"
        assert now <= (was | will), f"{what} has of {table} what nobody wrote: {sorted(now - (was | will))[:2]}"


async def settled(stage: Stage) -> tuple[Memory, int]:
    """Let both nodes hear of each other; return what they then know, and the orphans in the store."""
    a, b = await converge(stage)
    ours, theirs = memory(a), memory(b)
    assert ours == theirs, f"a and b differ: {_difference(ours, theirs)}"
    assert ours == await head_memory(stage), "the head is not what both know"
    known = await heads.settle(a.lane, deadline=soon())
    assert known is not None
    assert known.stored
    found = await orphans(stage.world, stage.project)
    assert [key for key in found if not SNAPSHOT.fullmatch(key)] == []
    left = list(leftovers(stage.folder / "a"))
    assert left == [], f"left behind: {left}"
    return ours, len(found)


def memory(node: Node) -> Memory:
    """Return what a node's database knows, after looking at its health."""
    return _live(node.database)


def same(what: str, expected: Memory, found: Memory) -> None:
    """Raise AssertionError unless both are the same."""
    assert found == expected, f"{what}: {_difference(expected, found)}"


def _live(path: Path) -> Memory:
    if not path.exists():
        return {}
    assert rows_of(path, "PRAGMA integrity_check") == [("ok",)]
    assert rows_of(path, "PRAGMA foreign_key_check") == []
    return _filled(path)


def _filled(path: Path) -> Memory:
    return {table: rows for table, rows in memory_rows(path).items() if rows}


def _difference(one: Memory, other: Memory) -> list[str]:
    return [
        f"{table}: {sign}{row[:200]}"
        for table in one | other
        for sign, rows in (
            ("-", one.get(table, set()) - other.get(table, set())),
            ("+", other.get(table, set()) - one.get(table, set())),
        )
        for row in sorted(rows)[:3]
    ]
