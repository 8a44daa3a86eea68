"""The order of a context alone: whose turn it is, whatever the first one waits for."""

from hypothesis import given
from hypothesis import strategies as st

from schemas.tasks import TaskStatus
from services.coordinator.engine.machine import TaskState
from services.coordinator.engine.state import Limits, State, inserted, without


def task(number: int) -> TaskState:
    return TaskState(
        id=f"{number}", context_id="c", status=TaskStatus.QUEUED, priority=5, max_attempts=3, labels=frozenset(),
        timeout_sec=120, seq=number,
    )  # fmt: skip


def line(*numbers: int) -> State:
    state = State(Limits(), b"seed")
    for number in numbers:
        state.insert(task(number))
    return state


def drained(state: State) -> list[str]:
    """End task after task; return them in order."""
    found: list[str] = []
    while (name := state.turn("c")) is not None:
        found.append(name)
        state.remove(task(int(name)))
    return found


def test_tasks_come_in_the_order_of_their_submission() -> None:
    assert drained(line(1, 2, 3)) == ["1", "2", "3"]
    assert drained(line(2, 3, 1)) == ["1", "2", "3"]


def test_the_turn_stays_with_the_first_until_it_ends() -> None:
    state = line(1, 2)
    state.hold("c", "1", held=True)
    state.hold("c", "1", held=False)
    assert state.turn("c") == "1", "it failed, was handed back or waits for an instant"
    assert drained(state) == ["1", "2"]
    assert state.lines == {}


def test_one_that_ended_while_others_waited_leaves_their_order() -> None:
    state = line(1, 2, 3)
    state.remove(task(2))
    assert drained(state) == ["1", "3"]


def test_one_that_is_revived_in_front_of_one_that_runs_waits_for_it() -> None:
    state = line(2)
    state.hold("c", "2", held=True)
    state.insert(task(1))
    assert state.turn("c") == "2"
    state.hold("c", "2", held=False)
    assert drained(state) == ["1", "2"]


def test_what_is_held_before_its_task_is_known_has_the_turn() -> None:
    state = State(Limits(), b"seed")
    state.hold("c", "2", held=True)
    state.insert(task(1))
    assert state.turn("c") == "2"
    state.hold("other", "3", held=True)
    state.hold("other", "3", held=False)
    assert set(state.lines) == {"c"}


@given(st.lists(st.integers(0, 9), unique=True), st.integers(0, 9))
def test_an_order_is_kept(numbers: list[int], one: int) -> None:
    order = tuple((number, f"{number}") for number in sorted(numbers))
    rest = without(order, f"{one}")
    assert rest == tuple(number for number in order if number[0] != one)
    assert inserted(rest, (one, f"{one}")) == tuple(sorted([*rest, (one, f"{one}")]))


@given(st.lists(st.sampled_from(["append", "end", "hold", "free", "revive"]), max_size=60), st.data())
def test_no_history_breaks_the_order(steps: list[str], data: st.DataObject) -> None:
    state, live, ended, held, number = line(), list[int](), set[int](), set[int](), 0
    for step in steps:
        if step == "append":
            state.insert(task(number))
            live.append(number)
            number += 1
        elif step == "end" and live:
            one = data.draw(st.sampled_from(live))
            state.hold("c", f"{one}", held=False)
            state.remove(task(one))
            live.remove(one)
            held.discard(one)
            ended.add(one)
        elif step == "hold" and live and not held:
            assert state.turn("c") == f"{live[0]}"
            state.hold("c", f"{live[0]}", held=True)
            held.add(live[0])
        elif step == "free" and held:
            state.hold("c", f"{held.pop()}", held=False)
        elif step == "revive" and ended:
            one = data.draw(st.sampled_from(sorted(ended)))
            ended.remove(one)
            state.insert(task(one))
            live = sorted([*live, one])
        expected = next(iter(held), live[0] if live else None)
        assert state.turn("c") == (None if expected is None else f"{expected}")
