"""The state of one tenure: live tasks, active leases, the order of each context, ready tasks, workers, ties.

Tables of immutable rows. Every change goes through `put` and `drop`, which note the old row: `rewind` takes changes
back that the database did not accept, `accept` forgets how to.
"""

from bisect import insort
from collections import OrderedDict
from collections.abc import Hashable, MutableMapping
from dataclasses import dataclass, field
from typing import TypeVar

import msgspec

from schemas.leases import Lease
from schemas.workers import Worker
from services.coordinator.engine.machine import FAILED, QUEUED, TaskState

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

#: A place among all tasks, and the task's id: they sort by submission.
Numbered = tuple[int, str]
#: The labels and the priority that ready tasks have in common.
LaneKey = tuple[frozenset[str], int]


class Held(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An active lease. It expires at `until`, in seconds of the loop's clock."""

    lease: Lease
    until: float
    #: The entry in KV decides when it expires: the entry was there when this tenure began and was not renewed since.
    by_server: bool = False
    #: Leased in an earlier tenure: its worker may never have received the order.
    unconfirmed: bool = False


class Line(msgspec.Struct, frozen=True, gc=False):
    """The live tasks of a context in the order of their submission, and those of them that a worker holds.

    A task keeps its place until it ends, whatever it waits for. Its priority counts against other contexts only.
    """

    order: tuple[Numbered, ...] = ()
    held: tuple[str, ...] = ()

    @property
    def turn(self) -> str:
        """The task that a worker holds, or else the first one; a line is never empty."""
        return self.held[0] if self.held else self.order[0][1]


class Place(msgspec.Struct, frozen=True, gc=False):
    """The ready tasks of a context in one lane. The context with the smallest `turn` is next."""

    turn: int
    tasks: tuple[Numbered, ...]


#: Contexts of one lane, in the order of their turns.
Lane = OrderedDict[str, Place]


class Known(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A worker of this tenure: its last presence, when that came, and how many leases it holds."""

    worker: Worker
    heard: float
    held: int = 0
    #: It belongs to no node: it asks for tasks instead of receiving orders.
    pulls: bool = False


class Recorded(msgspec.Struct, frozen=True, gc=False):
    """The row of a worker in the database: when it was first seen, and whether an operator drains it."""

    registered_at: str
    drained: bool = False


class Tie(msgspec.Struct, frozen=True, gc=False):
    """The worker that ran a context last, its session there, and until when the context prefers that worker.

    The context with the smallest `turn` is forgotten first.
    """

    turn: int
    worker_id: str
    session: str | None
    until: float


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits that the settings give."""

    max_prompt_bytes: int = 1 << 20
    max_output_bytes: int = 8 << 20
    lease_seconds: int = 300
    #: Seconds by which a lease outlives its task's timeout.
    margin_seconds: int = 30
    #: Tasks of one context run one at a time, in order.
    serial: bool = True

    def lease_of(self, timeout_sec: int) -> int:
        """Return the seconds that the lease of a task with this timeout lives."""
        return max(self.lease_seconds, timeout_sec + self.margin_seconds)


@dataclass(slots=True)
class State:
    """The tables. `seed` makes the ids of leases: nobody outside can guess them, and a replay has the same ones."""

    limits: Limits
    seed: bytes
    tasks: dict[str, TaskState] = field(default_factory=dict[str, TaskState])
    leases: dict[str, Held] = field(default_factory=dict[str, Held])
    lines: dict[str, Line] = field(default_factory=dict[str, Line])
    lanes: dict[LaneKey, Lane] = field(default_factory=dict[LaneKey, Lane])
    #: When each ready task became ready, in seconds of the loop's clock.
    ready_since: dict[str, float] = field(default_factory=dict[str, float])
    workers: dict[str, Known] = field(default_factory=dict[str, Known])
    recorded: dict[str, Recorded] = field(default_factory=dict[str, Recorded])
    ties: OrderedDict[str, Tie] = field(default_factory=OrderedDict[str, Tie])
    #: What the batch of events that is being applied made, and the database may not have yet: `key …` the task of an
    #: idempotency key, `lease …` the task of a lease, `worker …` the worker of a row.
    fresh_keys: dict[str, str] = field(default_factory=dict[str, str])
    #: `seq`, `turn`, `grant`: the last number given; `stirred`: what may run has changed since the last placing.
    counters: dict[str, int] = field(default_factory=dict[str, int])
    _journal: list["tuple[MutableMapping[Hashable, object], Hashable, object]"] = field(
        default_factory=list["tuple[MutableMapping[Hashable, object], Hashable, object]"]
    )

    def put(self, table: MutableMapping[K, V], key: K, value: V) -> None:
        """Set a row."""
        self._journal.append((table, key, table.get(key, _GONE)))  # type: ignore[arg-type]
        table[key] = value

    def drop(self, table: MutableMapping[K, V], key: K) -> None:
        """Delete a row; no error if there is none."""
        if key in table:
            self._journal.append((table, key, table.pop(key)))  # type: ignore[arg-type]

    def mark(self) -> int:
        """Return where the state is now, for `rewind`."""
        return len(self._journal)

    def rewind(self, mark: int) -> None:
        """Take back every change since `mark`."""
        in_turn = list[OrderedDict[str, Place | Tie]]()
        while len(self._journal) > mark:
            table, key, old = self._journal.pop()
            if old is _GONE:
                del table[key]
            else:
                table[key] = old
            if isinstance(table, OrderedDict):
                in_turn.append(table)  # type: ignore[arg-type]
        for contexts in {id(table): table for table in in_turn}.values():
            for context, _ in sorted(contexts.items(), key=lambda item: item[1].turn):
                contexts.move_to_end(context)

    def accept(self, until: int | None = None) -> None:
        """Keep the changes until a mark, or all: they cannot be taken back any more, and later ones count from 0."""
        del self._journal[:until]

    def close(self) -> int:
        """End the transaction that is being applied: what it made is fresh no more. Return where it ends."""
        # Another table: taking changes back must find the old one as it was.
        self.fresh_keys = {}
        return self.mark()

    def next(self, counter: str) -> int:
        """Count one further and return the number."""
        number = self.counters.get(counter, 0) + 1
        self.put(self.counters, counter, number)
        return number

    def stir(self) -> None:
        """Note that a task may be able to run now."""
        if not self.counters.get("stirred"):
            self.put(self.counters, "stirred", 1)

    def turn(self, context: str) -> str | None:
        """Return the task whose turn it is in a context; None for a context without live tasks."""
        line = self.lines.get(context)
        return line.turn if line is not None else None

    def keep_line(self, context: str, line: Line) -> None:
        """Set the line of a context; an empty one is dropped."""
        if line.order or line.held:
            self.put(self.lines, context, line)
        else:
            self.drop(self.lines, context)

    def insert(self, task: TaskState) -> None:
        """Put a task into its context at its place."""
        line = self.lines.get(task.context_id, _EMPTY)
        self.put(self.lines, task.context_id, Line(inserted(line.order, (task.seq, task.id)), line.held))

    def remove(self, task: TaskState) -> None:
        """Take a task that ended out of its context."""
        line = self.lines[task.context_id]
        self.keep_line(task.context_id, Line(without(line.order, task.id), line.held))

    def hold(self, context: str, task_id: str, *, held: bool) -> None:
        """Note that a worker holds a task, or holds it no more."""
        line = self.lines.get(context, _EMPTY)
        others = tuple(name for name in line.held if name != task_id)
        self.keep_line(context, Line(line.order, (*others, task_id) if held else others))


def waits(task: TaskState) -> bool:
    """Whether a task waits for an instant: for its next attempt, or because it must not begin before."""
    return task.status is FAILED or (task.status is QUEUED and task.not_before > 0)


def inserted(order: tuple[Numbered, ...], one: Numbered) -> tuple[Numbered, ...]:
    """Return `order` with one more, at its place."""
    if not order or order[-1] < one:
        return (*order, one)
    found = list(order)
    insort(found, one)
    return tuple(found)


def without(order: tuple[Numbered, ...], task_id: str) -> tuple[Numbered, ...]:
    """Return `order` without a task."""
    if order and order[0][1] == task_id:
        return order[1:]
    return tuple(one for one in order if one[1] != task_id)


_GONE, _EMPTY = object(), Line()
