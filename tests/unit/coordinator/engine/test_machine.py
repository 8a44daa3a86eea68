"""The state machine alone: what may follow what, and what never happens."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.tasks import TaskStatus
from services.coordinator.engine import machine
from services.coordinator.engine.machine import MOST_INTERRUPTIONS, TaskState, WrongStateError

STEPS = {
    "lease": lambda task: machine.lease(task, lease_id="l", worker_id="w"),
    "start": machine.start,
    "complete": machine.complete,
    "fail": lambda task: machine.fail(task, reason="x", now=100.0, chance=0.5),
    "fall due": machine.fall_due,
    "expire": machine.expire,
    "hand back": lambda task: machine.hand_back(task, reason="x"),
    "cancel": lambda task: machine.cancel(task, reason="x"),
    "requeue": machine.requeue,
}
ALLOWED = {
    "lease": {TaskStatus.QUEUED},
    "start": machine.HELD,
    "complete": machine.HELD,
    "fail": machine.HELD,
    "fall due": {TaskStatus.QUEUED, TaskStatus.FAILED},
    "expire": machine.HELD,
    "hand back": machine.HELD,
    "cancel": machine.LIVE,
    "requeue": {TaskStatus.FAILED, TaskStatus.DEAD},
}


def new(max_attempts: int = 3) -> TaskState:
    return TaskState(
        id="t", context_id="c", status=TaskStatus.QUEUED, priority=5, max_attempts=max_attempts, labels=frozenset(),
        timeout_sec=120,
    )  # fmt: skip


@given(st.integers(1, 10), st.lists(st.sampled_from(sorted(STEPS)), max_size=60))
def test_no_history_breaks_a_bound(max_attempts: int, steps: list[str]) -> None:
    task = new(max_attempts)
    for step in steps:
        if task.status not in ALLOWED[step]:
            with pytest.raises(WrongStateError):
                STEPS[step](task)
            continue
        task = STEPS[step](task)
        assert 0 <= task.attempts <= max_attempts
        assert 0 <= task.interruptions <= MOST_INTERRUPTIONS
        assert (task.status in machine.HELD) <= (task.lease_id is not None)
        assert (task.status in {TaskStatus.QUEUED, TaskStatus.FAILED, TaskStatus.DEAD}) <= (task.lease_id is None)


def test_an_interruption_burns_no_attempt_until_there_were_too_many() -> None:
    task = new(max_attempts=2)
    for number in range(MOST_INTERRUPTIONS):
        task = machine.hand_back(machine.lease(task, lease_id="l", worker_id="w"), reason="stopped")
        assert (task.attempts, task.interruptions) == (0, number + 1)
    task = machine.hand_back(machine.lease(task, lease_id="l", worker_id="w"), reason="stopped")
    assert (task.status, task.attempts) == (TaskStatus.QUEUED, 1)
    task = machine.hand_back(machine.lease(task, lease_id="l", worker_id="w"), reason="stopped")
    assert task.status is TaskStatus.DEAD


@given(st.integers(1, 10), st.floats(0, 1, exclude_max=True))
def test_a_wait_grows_and_has_an_end(attempts: int, chance: float) -> None:
    assert machine.BACKOFF <= machine.backoff(attempts, chance) <= 1.5 * machine.MOST_BACKOFF
    assert machine.backoff(attempts, 0.0) <= machine.backoff(attempts + 1, 0.0)
