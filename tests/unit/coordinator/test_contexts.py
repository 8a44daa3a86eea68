"""The order of contexts alone: whose turn it is, whatever the first one waits for."""

from hypothesis import given
from hypothesis import strategies as st

from services.coordinator.contexts import Contexts


def line(*names: str) -> Contexts:
    contexts = Contexts()
    for name in names:
        contexts.append("c", name)
    return contexts


def drained(contexts: Contexts) -> list[str]:
    """End task after task; return them in order."""
    found: list[str] = []
    while (name := contexts.turn("c")) is not None:
        found.append(name)
        contexts.remove("c", name)
    return found


def test_tasks_come_in_the_order_of_their_submission() -> None:
    assert drained(line("a", "b", "c")) == ["a", "b", "c"]


def test_contexts_know_nothing_of_each_other() -> None:
    contexts = line("a")
    contexts.append("other", "x")
    assert (contexts.turn("c"), contexts.turn("other"), contexts.turn("none")) == ("a", "x", None)
    contexts.remove("none", "x")
    contexts.free("none", "x")
    assert contexts.turn("other") == "x"


def test_the_turn_stays_with_the_first_until_it_ends() -> None:
    contexts = line("a", "b")
    contexts.hold("c", "a")
    contexts.free("c", "a")
    assert contexts.turn("c") == "a", "it failed, was handed back or waits for an instant"
    contexts.remove("c", "a")
    assert contexts.turn("c") == "b"


def test_one_that_ended_while_others_waited_leaves_their_order() -> None:
    contexts = line("a", "b", "c")
    contexts.remove("c", "b")
    assert drained(contexts) == ["a", "c"]


def test_a_revived_task_goes_back_to_its_place() -> None:
    contexts = line("a", "c", "d")
    contexts.insert("c", "b", earlier={"a", "gone"})
    assert drained(contexts) == ["a", "b", "c", "d"]
    contexts = line("b")
    contexts.insert("c", "a", earlier=())
    assert drained(contexts) == ["a", "b"]
    contexts.insert("c", "a", earlier=())
    assert drained(contexts) == ["a"]


def test_who_was_revived_in_front_of_one_that_runs_waits_for_it() -> None:
    contexts = line("b")
    contexts.hold("c", "b")
    contexts.insert("c", "a", earlier=())
    assert contexts.turn("c") == "b"
    contexts.free("c", "b")
    assert drained(contexts) == ["a", "b"]


def test_a_task_that_is_put_in_again_stands_there_once() -> None:
    contexts = line("a", "b", "c")
    contexts.insert("c", "b", earlier={"a"})
    assert drained(contexts) == ["a", "b", "c"]


def test_a_lease_without_its_task_holds_the_context_until_it_ends() -> None:
    contexts = Contexts()
    contexts.hold("c", "gone")
    contexts.append("c", "a")
    assert contexts.turn("c") == "gone"
    contexts.free("c", "gone")
    assert contexts.turn("c") == "a"
    contexts.hold("other", "gone")
    contexts.free("other", "gone")
    assert contexts.turn("other") is None


@given(st.lists(st.sampled_from(["append", "end", "hold", "free", "revive"]), max_size=60), st.data())
def test_no_history_breaks_the_order(steps: list[str], data: st.DataObject) -> None:
    contexts, live, ended, held, number = Contexts(), list[int](), set[int](), set[int](), 0
    for step in steps:
        if step == "append":
            contexts.append("c", f"{number}")
            live.append(number)
            number += 1
        elif step == "end" and live:
            one = data.draw(st.sampled_from(live))
            contexts.free("c", f"{one}")
            contexts.remove("c", f"{one}")
            live.remove(one)
            held.discard(one)
            ended.add(one)
        elif step == "hold" and live and not held:
            assert contexts.turn("c") == f"{live[0]}"
            contexts.hold("c", f"{live[0]}")
            held.add(live[0])
        elif step == "free" and held:
            contexts.free("c", f"{held.pop()}")
        elif step == "revive" and ended:
            one = data.draw(st.sampled_from(sorted(ended)))
            ended.remove(one)
            contexts.insert("c", f"{one}", earlier={f"{other}" for other in live if other < one})
            live = sorted([*live, one])
        expected = next(iter(held), live[0] if live else None)
        assert contexts.turn("c") == (None if expected is None else f"{expected}")
