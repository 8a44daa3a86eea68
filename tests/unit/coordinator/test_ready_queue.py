"""The board alone: order, fairness, and what costs nothing."""

from dataclasses import replace

from services.coordinator.machine import TaskState
from services.coordinator.ready_queue import CROWD, Board
from tests.unit.coordinator.test_machine import new


def task(name: str, context: str, *, priority: int = 5, labels: tuple[str, ...] = ()) -> TaskState:
    return replace(new(), id=name, context_id=context, priority=priority, labels=frozenset(labels))


def drawn(board: Board, demand: frozenset[str] = frozenset()) -> list[str]:
    """Take what can run now; return it in order."""
    found = list(board.candidates(demand))
    for one in found:
        board.take(one)
    return [one.id for one in found]


def test_contexts_take_turns_and_each_keeps_its_order() -> None:
    board = Board()
    for number in range(3):
        board.add(task(f"a{number}", "a"))
    board.add(task("b0", "b"))
    assert drawn(board) == ["a0", "b0"]
    board.add(task("c0", "c"))
    assert drawn(board) == ["a1", "c0"]
    assert drawn(board) == ["a2"]
    assert len(board) == 0


def test_the_urgent_come_first_and_what_comes_back_keeps_its_place() -> None:
    board = Board()
    board.add(task("later", "a", priority=1))
    board.add(task("soon", "b", priority=9))
    board.add(task("next", "c"))
    assert [one.id for one in board.candidates(frozenset())] == ["soon", "next", "later"]
    board.add(task("again", "c"), first=True)
    assert [one.id for one in board.candidates(frozenset())] == ["soon", "again", "later"]


def test_what_was_taken_out_is_not_found_and_can_come_again() -> None:
    board = Board()
    one = task("a0", "a")
    board.add(one)
    board.remove(one)
    assert (drawn(board), len(board)) == ([], 0)
    board.add(replace(one, attempts=1))
    assert [found.attempts for found in board.candidates(frozenset())] == [1]


def test_demands_are_apart() -> None:
    board = Board()
    board.add(task("plain", "a"))
    board.add(task("special", "b", labels=("gpu",)))
    assert set(board.demands()) == {frozenset(), frozenset({"gpu"})}
    assert drawn(board, frozenset({"gpu"})) == ["special"]
    assert board.demands() == [frozenset()]
    board.add(task("another", "b", labels=("gpu",)))
    assert drawn(board, frozenset({"gpu"})) == ["another"]


def test_a_crowd_that_cannot_run_hides_nobody() -> None:
    board = Board()
    for number in range(2 * CROWD):
        board.add(task(f"t{number}", f"c{number}"))
    seen: set[str] = set()
    for _ in range(2):
        seen |= {one.id for one in board.candidates(frozenset())}
    assert len(seen) == 2 * CROWD
