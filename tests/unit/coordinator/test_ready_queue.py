"""The ready queue alone: order, fairness, and what costs nothing."""

from dataclasses import replace

from services.coordinator.machine import TaskState
from services.coordinator.ready_queue import CROWD, ReadyQueue
from tests.unit.coordinator.test_machine import new


def task(name: str, context: str, *, priority: int = 5, labels: tuple[str, ...] = ()) -> TaskState:
    return replace(new(), id=name, context_id=context, priority=priority, labels=frozenset(labels))


def drawn(queue: ReadyQueue, demand: frozenset[str] = frozenset()) -> list[str]:
    """Take what can run now; return it in order."""
    found = list(queue.candidates(demand))
    for one in found:
        queue.take(one)
    return [one.id for one in found]


def test_contexts_take_turns_and_each_keeps_its_order() -> None:
    queue = ReadyQueue()
    for number in range(3):
        queue.add(task(f"a{number}", "a"))
    queue.add(task("b0", "b"))
    assert drawn(queue) == ["a0", "b0"]
    queue.add(task("c0", "c"))
    assert drawn(queue) == ["a1", "c0"]
    assert drawn(queue) == ["a2"]
    assert len(queue) == 0


def test_the_urgent_come_first_and_what_comes_back_keeps_its_place() -> None:
    queue = ReadyQueue()
    queue.add(task("later", "a", priority=1))
    queue.add(task("soon", "b", priority=9))
    queue.add(task("next", "c"))
    assert [one.id for one in queue.candidates(frozenset())] == ["soon", "next", "later"]
    queue.add(task("again", "c"), first=True)
    assert [one.id for one in queue.candidates(frozenset())] == ["soon", "again", "later"]


def test_what_was_taken_out_is_not_found_and_can_come_again() -> None:
    queue = ReadyQueue()
    one = task("a0", "a")
    queue.add(one)
    queue.remove(one)
    assert (drawn(queue), len(queue)) == ([], 0)
    queue.add(replace(one, attempts=1))
    assert [found.attempts for found in queue.candidates(frozenset())] == [1]


def test_demands_are_apart() -> None:
    queue = ReadyQueue()
    queue.add(task("plain", "a"))
    queue.add(task("special", "b", labels=("gpu",)))
    assert set(queue.demands()) == {frozenset(), frozenset({"gpu"})}
    assert drawn(queue, frozenset({"gpu"})) == ["special"]
    assert queue.demands() == [frozenset()]
    queue.add(task("another", "b", labels=("gpu",)))
    assert drawn(queue, frozenset({"gpu"})) == ["another"]


def test_a_crowd_that_cannot_run_hides_nobody() -> None:
    queue = ReadyQueue()
    for number in range(2 * CROWD):
        queue.add(task(f"t{number}", f"c{number}"))
    seen: set[str] = set()
    for _ in range(2):
        seen |= {one.id for one in queue.candidates(frozenset())}
    assert len(seen) == 2 * CROWD
