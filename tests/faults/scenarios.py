"""What is swept: for each operation of the lane the state that it begins with, and the operation itself on node a.

Node b has memory of its own that nobody was told of: whatever a kill does to a, the rows of b must come through.
"""

from collections.abc import Awaitable, Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw

from membridge.aio import threads
from membridge.commits import heads, layout, tags
from membridge.commits.progress import ProgressTracker
from membridge.errors import FileAccessError, RefusedError
from membridge.merge.audit import AUDIT_FILE, Audit
from membridge.merge.row_index import INDEX_FILE
from membridge.snapshot import backups, standing
from membridge.snapshot.lane import Lane
from schemas.commits import GcRequest, RecoverRequest, RecoverySource
from schemas.identity import ProjectId
from tests.faults import hand_over
from tests.faults.world import PLAIN, Node, Terms, World, soon
from tests.fixtures.databases import Writer, connect, execute, make_database


@dataclass(frozen=True, slots=True)
class Stage:
    """Both nodes of a project, and the moment from which steps count."""

    world: World
    folder: Path
    project: ProjectId
    terms: Terms = PLAIN
    arm: Callable[[], None] = field(default=lambda: None)

    def node(self, name: str) -> Node:
        """Return a node as its daemon has it."""
        return self.world.node(self.folder, self.project, name, self.terms)


@dataclass(frozen=True, slots=True)
class Scenario:
    """`prepare` makes the template, `each` what cannot be copied, `act` is swept."""

    name: str
    prepare: Callable[[Stage], Awaitable[None]]
    act: Callable[[Stage], Awaitable[Any]]
    terms: Terms = PLAIN
    each: Callable[[Stage], Awaitable[Any]] | None = None
    #: What a person or the daemon does after the kill; the operation itself unless said otherwise.
    again: Callable[[Stage], Awaitable[Any]] | None = None
    #: Whether a full disk is swept too.
    full: bool = False
    #: Whether only lost answers are swept: its writes to the disk are those of other scenarios.
    only_answers: bool = False


@contextmanager
def writing(path: Path, name: str) -> Any:
    """Write as the worker does, and leave the WAL beside the database as a running worker would."""
    with Writer(path, name=name) as writer:
        writer._connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        yield writer


def learn(node: Node, name: str, batches: int = 1) -> None:
    """Let a node's agent learn something."""
    with writing(node.database, name) as writer:
        for _ in range(batches):
            writer.batch(observations=2)


def remember(node: Node) -> Node:
    """Give a node a small database of its own."""
    make_database(node.database, empty=True)
    connection = connect(node.database)
    connection.execute("VACUUM; PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    connection.close()
    learn(node, node.lane.node, 2)
    return node


def change(node: Node, label: str, *, forget: bool = False) -> None:
    """Edit the oldest observation, and forget the newest."""
    with writing(node.database, label) as writer:
        first = "(SELECT min(id) FROM observations)"
        writer._connection.execute(f"UPDATE observations SET subtitle = ? WHERE id = {first}", (f"edited by {label}",))
        if forget:
            writer._connection.execute("DELETE FROM observations WHERE id = (SELECT max(id) FROM observations)")


async def alone(stage: Stage) -> None:
    remember(stage.node("a"))
    remember(stage.node("b"))


async def together(stage: Stage) -> None:
    """Both know the same, and each learned something since."""
    a, b = remember(stage.node("a")), stage.node("b")
    await a.push()
    await b.pull()
    learn(a, "more of a")
    learn(b, "more of b")


async def at_the_end_of_a_chain(stage: Stage) -> None:
    await together(stage)
    a = stage.node("a")
    await a.push()
    learn(a, "still more of a")


async def before_a_rollup(stage: Stage) -> None:
    """The next commit has number 8."""
    await together(stage)
    await committed(stage, "a", 6)


async def behind_a_rollup(stage: Stage) -> None:
    """B committed more than a rollup holds since a pulled."""
    await together(stage)
    await committed(stage, "b", 9)


async def committed(stage: Stage, machine: str, times: int) -> None:
    """Commit so often, and leave something to push: rows come, change and go."""
    node = stage.node(machine)
    for number in range(times):
        await node.push()
        change(node, f"commit {number}", forget=number == 3)
        learn(node, f"commit {number} of {machine}")


async def behind(stage: Stage) -> None:
    """B committed rows, an edit that clashes with one of a, and a deletion; a has two backups already."""
    a, b = remember(stage.node("a")), stage.node("b")
    await a.push()
    await b.pull()
    for _ in range(2):
        await save(a)
    change(b, "b", forget=True)
    learn(b, "committed by b", 2)
    await b.push()
    change(a, "a")
    learn(a, "more of a")
    learn(b, "more of b")


async def empty_machine(stage: Stage) -> None:
    b = remember(stage.node("b"))
    stage.node("a")
    await b.push()
    learn(b, "more of b")
    await b.push()
    learn(b, "still more of b")


async def only_the_old_layout(stage: Stage) -> None:
    old = stage.node("old")
    remember(old)
    await old.push()
    for key in [info.key async for info in old.lane.store.list(f"projects/{stage.project}/", deadline=soon())]:
        if "/sqlite/" not in key:
            await old.lane.store.delete(key, deadline=soon())
    await old.lane.heads.delete(stage.project, deadline=soon())
    stage.node("a")
    remember(stage.node("b"))


async def backed_up(stage: Stage) -> None:
    await together(stage)
    for _ in range(3):
        await save(stage.node("a"))


async def save(node: Node) -> None:
    """Take a backup, and change what no memory has, so that the next one is of another state."""
    await threads.run(backups.take, node.lane, "merge", deadline=soon())
    execute(node.database, "UPDATE observations SET relevance_count = relevance_count + 1")


async def push(stage: Stage) -> object:
    node = stage.node("a")
    stage.arm()
    return await node.push()


async def pull(stage: Stage) -> object:
    node = stage.node("a")
    stage.arm()
    return await node.pull()


async def replace(stage: Stage) -> object:
    node = stage.node("a")
    stage.arm()
    return await node.pull(replace=True)


async def take_in(stage: Stage) -> object:
    node = stage.node("a")
    node.queue = await stage.world.queue(stage.project)
    stage.arm()
    return await node.take_in()


async def propose_as_b(stage: Stage) -> None:
    await stage.node("b").push()


async def back_up(stage: Stage) -> object:
    lane = stage.node("a").lane
    stage.arm()
    return await threads.run(backups.take, lane, "merge", deadline=soon())


async def lead(stage: Stage) -> object:
    node = stage.node("a")
    stage.arm()
    return await node.project.lead(2, deadline=soon())


async def with_three_snapshots(stage: Stage) -> None:
    """A and b know the same three, and each learned something since."""
    await together(stage)
    a, b = stage.node("a"), stage.node("b")
    for label in ("second", "third"):
        learn(a, label)
        await a.push()
    await b.pull()
    learn(b, "only b")


async def restore_the_first(stage: Stage) -> object:
    node = stage.node("a")
    record = await heads.fetch_record(node.lane, 1, deadline=soon())
    stage.arm()
    return await node.project.restore(record, ProgressTracker(), deadline=soon())


async def backed_up_and_lost(stage: Stage) -> None:
    """A has a backup, and lost rows since then that both had."""
    await together(stage)
    a = stage.node("a")
    await save(a)
    execute(a.database, "DELETE FROM observations WHERE id % 3 = 0")


async def put_a_backup_back(stage: Stage) -> object:
    node = stage.node("a")
    stage.arm()
    return await node.project.restore_backup("newest", ProgressTracker(), deadline=soon())


async def merged_often(stage: Stage) -> None:
    """A merged three commits of b, each of which left a backup, and b committed more."""
    a, b = remember(stage.node("a")), stage.node("b")
    await a.push()
    await b.pull()
    for number in range(3):
        change(b, f"b {number}")
        learn(b, f"commit {number} of b")
        await b.push()
        await a.pull()
    change(b, "b at last", forget=True)
    learn(b, "committed by b")
    await b.push()
    learn(a, "more of a")
    learn(b, "more of b")


async def with_a_missed_change(stage: Stage) -> None:
    """The index of a has missed what a learned since."""
    await together(stage)
    lane = stage.node("a").lane
    standing.numbers(lane, deadline=soon())
    connection = connect(lane.folder / INDEX_FILE)
    connection.execute("DELETE FROM open")
    connection.close()


async def compare_everything(stage: Stage) -> object:
    """Audit a row at a time, until nothing is left that had been missed."""
    lane = stage.node("a").lane
    audit = Audit(lane.folder / AUDIT_FILE, lane.index, seconds=0.0)
    stage.arm()
    missed = await threads.run(_audited, lane, audit)
    assert standing.numbers(lane, deadline=soon()).unsynced, "what had been missed was not healed"
    return missed


def _audited(lane: Lane, audit: Audit) -> int:
    missed = 0
    while True:
        found = standing.audit_slice(lane, audit, deadline=soon())
        if found is None:
            # The daemon logs it and goes on later.
            raise FileAccessError(lane.index.problem.reason)
        missed += found.missed
        if found.is_last:
            return missed


async def take_writes_back(stage: Stage) -> object:
    node = stage.node("a")
    oldest = min(one.id for one in backups.listed(node.lane) if not one.full_copy)
    stage.arm()
    return await node.project.restore_backup(oldest, ProgressTracker(), deadline=soon())


async def collect_garbage(stage: Stage) -> object:
    node = stage.node("a")
    stage.arm()
    return await node.project.collect_garbage(GcRequest(), ProgressTracker(), deadline=soon())


async def tag_and_move(stage: Stage) -> None:
    lane = stage.node("a").lane
    records = [await heads.fetch_record(lane, seq, deadline=soon()) for seq in (1, 2)]
    stage.arm()
    for name in ("moved", "gone"):
        await tags.put(lane, name, records[0], move=True, deadline=soon())
    await tags.put(lane, "moved", records[1], move=True, deadline=soon())
    await tags.delete(lane, "gone", deadline=soon())


async def tag_again(stage: Stage) -> None:
    await tag_and_move(stage)
    listed = await tags.listed(stage.node("a").lane, deadline=soon())
    assert [(tag.name, tag.seq) for tag in listed] == [("moved", 2)]


async def with_a_damaged_record(stage: Stage) -> None:
    """Beyond the head lies a record that cannot be read: it may have been the newest once."""
    lane = stage.node("a").lane
    await lane.store.put(layout.commit(stage.project, 4), b"{", deadline=soon())


async def recover_from_the_mirror(stage: Stage) -> object:
    node = stage.node("a")
    stage.arm()
    return await node.project.recover(RecoverRequest(source=RecoverySource.MIRROR), ProgressTracker(), deadline=soon())


async def recover_again(stage: Stage) -> None:
    """What was stored at the first try needs no second one."""
    try:
        await recover_from_the_mirror(stage)
    except RefusedError as error:
        if "nothing is lost" not in error.message:
            raise


async def hand_over_to_b(stage: Stage) -> object:
    return await hand_over.hand_over(stage.world, stage.node("a"), stage.arm)


async def select_b(stage: Stage) -> object:
    return await hand_over.select(stage.world, stage.node("a"), stage.node("b"))


async def converge(stage: Stage) -> tuple[Node, Node]:
    """Let both nodes tell what they know and hear what the other knows."""
    a, b = stage.node("a"), stage.node("b")
    follower = stage.terms.secondary
    if follower is None:
        await a.push()
        await b.push()
        await a.pull()
        return a, b
    leader, follower = (b, a) if follower == "a" else (a, b)
    await follower.push()
    leader.queue = await stage.world.queue(stage.project)
    await leader.take_in()
    await leader.push()
    await follower.pull()
    return a, b


SCENARIOS: tuple[Scenario, ...] = (
    Scenario("first push", alone, push, full=True),
    Scenario("delta push", together, push, full=True),
    Scenario("full push after a chain", at_the_end_of_a_chain, push, Terms(max_deltas=1), full=True),
    Scenario("push with a rollup", before_a_rollup, push, full=True),
    Scenario("pull over a rollup", behind_a_rollup, pull),
    Scenario("push after another's commit", behind, push, Terms(max_backups=2)),
    Scenario("push with the old layout", together, push, Terms(legacy=True)),
    Scenario("pull and merge", behind, pull, Terms(max_backups=2), full=True),
    Scenario("first install", empty_machine, pull, full=True),
    Scenario("import of the old layout", only_the_old_layout, pull, Terms(legacy=True)),
    Scenario("replace", behind, replace, full=True),
    Scenario("propose", together, push, Terms(secondary="a"), full=True),
    Scenario("take in proposals", together, take_in, Terms(secondary="b"), each=propose_as_b, full=True),
    Scenario("backup and its retention", backed_up, back_up, Terms(max_backups=3), full=True),
    Scenario("a backup put back", backed_up_and_lost, put_a_backup_back, full=True),
    Scenario("merge and join undo records", merged_often, pull, Terms(max_backups=3), full=True),
    Scenario("writes taken back", merged_often, take_writes_back, full=True),
    Scenario("comparison of everything", with_a_missed_change, compare_everything),
    Scenario("first act of a new primary", together, lead),
    Scenario("restore", with_three_snapshots, restore_the_first, only_answers=True),
    Scenario(
        "collection of garbage",
        with_three_snapshots,
        collect_garbage,
        Terms(max_deltas=1, keep_last=1),
        only_answers=True,
    ),
    Scenario("tags", with_three_snapshots, tag_and_move, again=tag_again, only_answers=True),
    Scenario(
        "recovery from a mirror",
        with_three_snapshots,
        recover_from_the_mirror,
        each=with_a_damaged_record,
        again=recover_again,
        only_answers=True,
    ),
    Scenario("hand-over", together, hand_over_to_b, Terms(secondary="a"), again=select_b),
)
BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}
