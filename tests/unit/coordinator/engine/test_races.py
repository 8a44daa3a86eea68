"""Two events at one task in one batch: one of two that exclude each other is refused, and the context goes on.

As in the shell, an event that is refused leaves nothing, and one that must be looked up comes in the next batch.
"""

from itertools import product

import pytest
from msgspec.structs import replace

from membridge.errors import LeaseLostError, MembridgeError
from schemas.tasks import TaskStatus
from services.coordinator.engine.effects import Effect, NewResult, Send, Stop, TaskChanged
from services.coordinator.engine.engine import apply, place
from services.coordinator.engine.events import (
    Cancelled,
    Event,
    Expired,
    HandedBack,
    NotTaken,
    Renewed,
    Requeued,
    Taken,
    UnreadError,
)
from services.coordinator.engine.machine import TaskState, WrongStateError
from services.coordinator.engine.step import claim_of
from tests.fixtures.task_engine.scene import Scene, all_of, reported, sent

QUEUED, LEASED, RUNNING = TaskStatus.QUEUED, TaskStatus.LEASED, TaskStatus.RUNNING
FAILED, COMPLETED, DEAD = TaskStatus.FAILED, TaskStatus.COMPLETED, TaskStatus.DEAD
CANCEL = Cancelled(task_id="t", reason="", actor="somebody")
REQUEUE = Requeued(task_id="t", actor="somebody")
Outcome = list[Effect] | type[Exception]


def together(scene: Scene, *events: Event) -> tuple[list[Outcome], list[Effect]]:
    """Apply events in one batch; return the outcome of each, and the effects of placing."""
    outcomes = list[Outcome]()
    for event in events:
        begun = scene.state.mark()
        try:
            outcomes.append(apply(scene.state, event, scene.now))
        except (MembridgeError, UnreadError) as error:
            scene.state.rewind(begun)
            outcomes.append(type(error))
    placed = place(scene.state, scene.now)
    scene.state.accept()
    return outcomes, placed


def accepted(outcomes: list[Outcome]) -> list[bool]:
    return [isinstance(outcome, list) for outcome in outcomes]


def known(scene: Scene, status: TaskStatus) -> TaskState:
    """Return a task of this scene as the database has it after it ended."""
    return replace(scene.state.tasks["t"], status=status, lease_id=None)


@pytest.fixture
def scene() -> Scene:
    """A task that runs, and one behind it."""
    made = Scene()
    made.node("w", at_once=1)
    made.run("t")
    made.submit("u")
    return made


def test_of_two_requeues_one_is_refused(scene: Scene) -> None:
    dead = known(scene, DEAD)
    scene.do(CANCEL)
    again = replace(REQUEUE, known=dead)
    outcomes, _ = together(scene, again, again)
    assert accepted(outcomes) == [True, False]
    assert outcomes[1] is WrongStateError
    assert scene.state.lines["c"].order == ((1, "t"), (2, "u"))


def test_two_requeues_of_a_failed_task_queue_it_once(scene: Scene) -> None:
    scene.finish("t", success=False)
    outcomes, placed = together(scene, REQUEUE, REQUEUE)
    assert (accepted(outcomes), outcomes[1]) == ([True, False], WrongStateError)
    assert sent(placed) == [("t", "w")]


def test_a_requeue_and_a_cancel_happen_in_their_order(scene: Scene) -> None:
    dead = known(scene, DEAD)
    scene.do(CANCEL)
    outcomes, _ = together(scene, replace(REQUEUE, known=dead), replace(CANCEL, known=dead))
    assert accepted(outcomes) == [True, True]
    assert scene.status("t") is None
    outcomes, _ = together(scene, replace(CANCEL, known=dead), replace(REQUEUE, known=dead))
    assert (outcomes[0], scene.status("t")) == (WrongStateError, QUEUED)


def test_a_cancel_against_a_report(scene: Scene) -> None:
    lease = scene.lease("t")
    outcomes, placed = together(scene, CANCEL, reported(lease))
    assert outcomes[1] is LeaseLostError
    assert sent(placed) == [("u", "w")]


def test_a_report_against_a_cancel_that_must_be_looked_up_again(scene: Scene) -> None:
    lease, completed = scene.lease("t"), known(scene, COMPLETED)
    outcomes, placed = together(scene, reported(lease), CANCEL)
    assert outcomes[1] is UnreadError
    assert isinstance(outcomes[0], list)
    assert len(all_of(outcomes[0], NewResult)) == 1
    assert sent(placed) == [("u", "w")]
    assert together(scene, replace(CANCEL, known=completed))[0] == [WrongStateError]


def test_an_expiry_against_a_requeue(scene: Scene) -> None:
    lease = scene.lease("t")
    scene.passed = 300.0
    outcomes, placed = together(scene, Expired(lease.id), REQUEUE)
    assert outcomes[1] is WrongStateError, "it is queued already"
    assert sent(placed) == [("t", "w")]


def test_a_requeue_against_an_expiry_of_the_last_attempt() -> None:
    scene = Scene()
    scene.node("w")
    lease = scene.run("t", max_attempts=1)
    scene.passed = 300.0
    outcomes, _ = together(scene, REQUEUE, Expired(lease.id), REQUEUE)
    assert outcomes[0] is WrongStateError
    assert outcomes[2] is UnreadError, "it ended in this batch"
    assert scene.status("t") is None


def test_an_order_that_is_taken_after_a_cancel_is_stopped() -> None:
    scene = Scene()
    scene.node("w")
    scene.submit("t")
    claim = claim_of(scene.lease("t"))
    outcomes, _ = together(scene, CANCEL, Taken(claim))
    assert isinstance(outcomes[1], list)
    assert [stop.claim for stop in all_of(outcomes[1], Stop)] == [claim]
    assert scene.state.leases == {}


def test_an_order_that_is_taken_after_it_was_given_up_is_stopped() -> None:
    scene = Scene()
    scene.node("w")
    scene.submit("t")
    scene.node("x")
    claim = claim_of(scene.lease("t"))
    outcomes, placed = together(scene, NotTaken(claim, "no answer", unknown=True), Taken(claim))
    assert all(isinstance(outcome, list) and all_of(outcome, Stop) for outcome in outcomes)
    assert sent(placed) == [("t", "x")]


def test_a_heartbeat_against_an_expiry(scene: Scene) -> None:
    lease = scene.lease("t")
    scene.passed = 300.0
    outcomes, _ = together(scene, Expired(lease.id), Renewed(claim_of(lease)))
    assert outcomes[1] is LeaseLostError


@pytest.mark.parametrize("pair", [*product(["success", "error", "back", "expiry", "cancel"], repeat=2)])
def test_of_two_events_that_end_a_lease_one_counts(scene: Scene, pair: tuple[str, str]) -> None:
    lease = scene.lease("t")
    scene.passed = 300.0
    ways: dict[str, Event] = {
        "success": reported(lease), "error": reported(lease, success=False), "back": HandedBack(claim_of(lease)),
        "expiry": Expired(lease.id), "cancel": CANCEL,
    }  # fmt: skip
    outcomes, placed = together(scene, *(ways[name] for name in pair))
    changes = [all_of(outcome, TaskChanged) if isinstance(outcome, list) else [] for outcome in outcomes]
    assert len(changes[0]) == 1
    # A cancellation also ends a task that waits for its next attempt.
    may_cancel = pair[1] == "cancel" and pair[0] in {"error", "back", "expiry"}
    assert len(changes[1]) == may_cancel
    assert lease.id not in scene.state.leases
    assert len(all_of(placed, Send)) <= 1
    assert len(scene.state.leases) == len(all_of(placed, Send))
