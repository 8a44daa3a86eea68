"""The tables of a tenure: whatever was put and dropped, `rewind` restores all of it, the order of lanes too."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from membridge.errors import MembridgeError
from schemas.workers import WorkerStatus
from services.coordinator.engine.effects import Arm, Effect
from services.coordinator.engine.engine import _HANDLERS, apply, place
from services.coordinator.engine.events import (
    Asked,
    Believed,
    Cancelled,
    Compared,
    Drained,
    Due,
    Event,
    Expired,
    HandedBack,
    Heard,
    Lapsed,
    Loaded,
    NotTaken,
    Removed,
    Renewed,
    Requeued,
    Silent,
    Stirred,
    Taken,
    Unreadable,
    UnreadError,
)
from services.coordinator.engine.machine import DEAD, TaskState
from services.coordinator.engine.state import State
from services.coordinator.engine.step import claim_of
from services.coordinator.engine.workers import given_to
from tests.fixtures.task_engine.scene import Scene, asked, loaded, reported, snapshot, submitted, worker_of

CONTEXTS, WORKERS = st.sampled_from("abc"), st.sampled_from(["w", "x", "p"])
LABELS = st.sampled_from([[], ["gpu"]])


def dead(number: int, context: str) -> TaskState:
    """Return a task of an earlier tenure."""
    return TaskState(
        id=f"old{number}", context_id=context, status=DEAD, priority=5, max_attempts=3, labels=frozenset(),
        timeout_sec=120, seq=-number,
    )  # fmt: skip


@st.composite
def events(draw: st.DrawFn, state: State, number: int) -> Event:
    """Return an event that may happen to a state, or that comes too late."""
    task_id = draw(st.sampled_from([*state.tasks, "gone"]))
    leases = [held.lease for held in state.leases.values()]
    drawn_lease = st.sampled_from(leases) if leases else st.nothing()
    claims = drawn_lease.map(claim_of)
    context, worker = draw(CONTEXTS), draw(WORKERS)
    anything: list[st.SearchStrategy[Event]] = [
        st.builds(
            submitted, st.just(f"t{number}"), st.just(context), not_before=st.sampled_from([0.0, 2e9]), labels=LABELS,
            priority=st.integers(4, 5), max_attempts=st.integers(1, 2),
        ),
        st.just(Cancelled(task_id=task_id, reason="", actor="a", known=None)),
        st.just(Requeued(task_id=task_id, actor="a", known=dead(number, context) if task_id == "gone" else None)),
        st.just(asked("p", lease_id=f"l{number}")),
        st.builds(Heard, st.builds(worker_of, st.just(worker), at_once=st.integers(1, 3), labels=LABELS)),
        st.just(Heard(worker_of(worker, status=WorkerStatus.ERROR))),
        st.just(Silent((worker,))),
        st.builds(Drained, worker_id=st.just(worker), drained=st.booleans(), actor=st.just("a")),
        st.just(Removed(worker_id=worker, actor="a")),
        st.builds(
            Believed, worker_id=st.just(worker), running=st.frozensets(st.sampled_from([*state.tasks, "gone"])),
            given=st.just(given_to(state, worker)),
        ),
        st.just(Due(task_id)),
        st.just(Compared(frozenset())),
        st.just(Stirred()),
    ]  # fmt: skip
    if leases:
        anything += [
            st.builds(Renewed, claims), st.builds(HandedBack, claims), st.builds(Taken, claims),
            st.builds(NotTaken, claims, st.just("no"), st.booleans()), st.builds(Unreadable, claims, st.just("no")),
            st.builds(reported, drawn_lease, success=st.booleans()), drawn_lease.map(lambda one: Expired(one.id)),
            drawn_lease.map(lambda one: Lapsed(one.id)),
        ]  # fmt: skip
    return draw(st.one_of(anything))


def test_every_event_has_its_handler() -> None:
    assert set(_HANDLERS) == set(Event.__args__)
    assert {Asked, Loaded} <= set(_HANDLERS)


@settings(max_examples=40)
@given(st.data(), st.booleans())
def test_whatever_happened_is_taken_back(data: st.DataObject, serial: bool) -> None:
    scene = Scene(serial=serial)
    scene.do(loaded())
    state, marks = scene.state, [(0, snapshot(scene.state))]
    for number in range(data.draw(st.integers(1, 25))):
        begun, before = state.mark(), snapshot(state)
        scene.passed += data.draw(st.sampled_from([0.0, 1.0, 400.0]))
        try:
            apply(state, data.draw(events(state, number)), scene.now)
        except (MembridgeError, UnreadError):
            state.rewind(begun)
            assert snapshot(state) == before
        if data.draw(st.booleans()):
            place(state, scene.now)
        if data.draw(st.integers(0, 9)) == 9:
            state.accept()
            marks.clear()
        marks.append((state.mark(), snapshot(state)))
        turns = [[one.turn for one in lane.values()] for lane in state.lanes.values()]
        assert turns == [sorted(lane) for lane in turns]
    for mark, then in reversed(marks):
        state.rewind(mark)
        assert snapshot(state) == then


def test_what_was_accepted_is_not_taken_back() -> None:
    scene = Scene()
    scene.submit("t")
    assert scene.state.mark() == 0
    scene.state.rewind(0)
    assert set(scene.state.tasks) == {"t"}


def test_what_is_accepted_until_a_mark_stays_and_the_rest_is_taken_back() -> None:
    scene = Scene()
    scene.node("w")
    before, state = snapshot(scene.state), scene.state
    scene._batch([submitted("t"), asked("p", lease_id="l")])
    until, first = state.close(), snapshot(state)
    scene._batch([submitted("u", "d"), Drained(worker_id="p", drained=True, actor="a")])
    state.accept(until)
    state.rewind(0)
    assert snapshot(state) == first
    assert before != first


def test_a_batch_whose_transaction_had_begun_is_taken_back_with_the_one_after_it() -> None:
    scene = Scene()
    scene.node("w")
    before, state = snapshot(scene.state), scene.state
    scene._batch([submitted("t"), asked("p", lease_id="l")])
    state.close()
    scene._batch([submitted("u", "d"), Drained(worker_id="p", drained=True, actor="a")])
    state.rewind(0)
    assert snapshot(state) == before


def test_a_row_that_is_not_there_is_dropped_without_a_trace() -> None:
    state = Scene().state
    state.drop(state.tasks, "none")
    state.stir()
    assert state.mark() == 1
    state.stir()
    assert state.mark() == 1, "once is enough"


def test_ids_of_leases_follow_from_the_seed() -> None:
    def ids(scene: Scene) -> list[str]:
        scene.node("w", at_once=9)
        for name in "abc":
            scene.submit(name, name)
        return list(scene.state.leases)

    first = ids(Scene())
    assert first == ids(Scene())
    assert len(set(first)) == 3
    other = Scene()
    other.state.seed = b"other"
    assert not set(first) & set(ids(other))


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_effects_do_not_depend_on_the_size_of_batches(batch: int) -> None:
    found: list[Effect] = []
    scene = Scene()
    scene.node("w", at_once=99)
    todo = [submitted(f"{number}", f"{number}") for number in range(7)]
    while todo:
        found += scene.do(*todo[:batch])
        todo = todo[batch:]
    arms = [effect.event for effect in found if isinstance(effect, Arm)]
    assert [arm.lease_id for arm in arms if isinstance(arm, Expired)] == list(scene.state.leases)
