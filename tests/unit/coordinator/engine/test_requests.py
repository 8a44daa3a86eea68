"""What clients ask: submit, cancel, requeue; and what the engine must be told of the database first."""

import pytest
from msgspec.structs import replace

from membridge.errors import NotFoundError
from schemas.tasks import TaskStatus
from services.coordinator.engine.effects import (
    Arm,
    Disarm,
    NewTask,
    Noted,
    Release,
    Reply,
    ReplyTask,
    Stop,
    TaskChanged,
    Tell,
)
from services.coordinator.engine.events import Cancelled, Due, Requeued, UnreadError
from services.coordinator.engine.machine import TaskState, WrongStateError
from services.coordinator.engine.step import claim_of
from tests.fixtures.task_engine.scene import LOOP, WALL, Scene, all_of, only, sent, submitted

QUEUED, RUNNING, FAILED = TaskStatus.QUEUED, TaskStatus.RUNNING, TaskStatus.FAILED
COMPLETED, DEAD = TaskStatus.COMPLETED, TaskStatus.DEAD
ENDED = TaskState(
    id="t", context_id="c", status=DEAD, priority=5, max_attempts=3, labels=frozenset(), timeout_sec=120, seq=1,
    attempts=3, reason="e",
)  # fmt: skip


def cancelled(**more: object) -> Cancelled:
    return Cancelled(**{"task_id": "t", "reason": "", "actor": "somebody", **more})  # type: ignore[arg-type]


def requeued(**more: object) -> Requeued:
    return Requeued(**{"task_id": "t", "actor": "somebody", **more})  # type: ignore[arg-type]


def test_a_task_is_numbered_written_told_and_answered() -> None:
    scene = Scene()
    effects = scene.do(submitted("t", labels=["gpu"], priority=7, max_attempts=2))
    new, reply = only(effects, NewTask), only(effects, Reply)
    assert (new.state.seq, new.state.labels, new.state.priority, new.state.max_attempts) == (1, {"gpu"}, 7, 2)
    assert reply.value == new.task
    assert [(note.action, note.actor) for note in all_of(effects, Noted)] == [("submitted", "somebody")]
    assert [tell.event.status for tell in all_of(effects, Tell)] == [QUEUED]
    assert scene.submit("u").seq == 2


def test_a_free_worker_has_a_task_in_the_batch_of_its_submission() -> None:
    scene = Scene()
    scene.node("w")
    assert sent(scene.do(submitted("t"))) == [("t", "w")]


def test_a_task_that_is_not_to_begin_yet_waits_for_its_timer() -> None:
    scene = Scene()
    scene.node("w")
    effects = scene.do(submitted("t", not_before=WALL + 5.0))
    arm = next(arm for arm in all_of(effects, Arm) if arm.event == Due("t"))
    assert (arm.at, sent(effects)) == (LOOP + 5.0, [])
    past = next(
        arm for arm in all_of(scene.do(submitted("u", "d", not_before=WALL - 5.0)), Arm) if arm.name == "task u"
    )
    assert past.at == LOOP
    assert sent(scene.do(Due("t"))) == [("t", "w")]
    assert all_of(scene.do(Due("t"), Due("nothing")), TaskChanged) == []


def test_a_repeated_key_is_answered_with_the_first_task() -> None:
    scene = Scene()
    first = submitted("t", idempotency_key="k")
    scene.refused(first, UnreadError)
    assert only(scene.do(replace(first, known="before")), ReplyTask).task_id == "before"
    assert scene.state.tasks == {}
    scene.do(replace(first, known=None))
    assert set(scene.state.tasks) == {"t"}


def test_a_key_repeated_within_a_batch_is_answered_with_the_first_task() -> None:
    scene = Scene()
    effects = scene.do(
        replace(submitted("t", idempotency_key="k"), known=None), submitted("u", idempotency_key="k"),
        replace(submitted("v", idempotency_key="k"), known=None),
    )  # fmt: skip
    assert [answer.task_id for answer in all_of(effects, ReplyTask)] == ["t", "t"]
    assert set(scene.state.tasks) == {"t"}


@pytest.mark.parametrize("event", [cancelled(), requeued()])
def test_a_task_that_is_not_live_is_looked_up(event: Cancelled | Requeued) -> None:
    scene = Scene()
    scene.refused(event, UnreadError)
    scene.refused(replace(event, known=None), NotFoundError, "there is no task t")
    scene.refused(replace(event, known=replace(ENDED, status=COMPLETED)), WrongStateError, "t is completed")


def test_a_waiting_task_is_cancelled_and_its_context_goes_on() -> None:
    scene = Scene()
    scene.submit("t", not_before=WALL + 60.0)
    scene.submit("u")
    effects = scene.do(cancelled(reason="not needed"))
    assert only(effects, TaskChanged).task.reason == "not needed"
    assert next(disarm.name for disarm in all_of(effects, Disarm)) == "task t"
    assert only(effects, ReplyTask).task_id == "t"
    assert (list(scene.state.tasks), list(scene.state.ready_since), all_of(effects, Stop)) == (["u"], ["u"], [])


def test_a_running_task_is_cancelled_and_its_worker_stopped() -> None:
    scene = Scene()
    scene.node("w")
    lease = scene.run("t")
    effects = scene.do(cancelled())
    assert only(effects, Stop).claim == claim_of(lease)
    assert only(effects, Release).lease.id == lease.id
    assert only(effects, TaskChanged).task.reason == "cancelled"
    assert (scene.state.tasks, scene.state.leases, scene.state.lines) == ({}, {}, {})


def test_a_dead_task_is_revived_with_all_its_attempts_at_its_old_place() -> None:
    scene = Scene()
    scene.submit("first", "other")
    scene.submit("u")
    revived = replace(ENDED, seq=0)
    effects = scene.do(requeued(known=revived))
    after = only(effects, TaskChanged).task
    assert (after.status, after.attempts, after.reason) == (QUEUED, 0, "")
    assert list(scene.state.ready_since) == ["first", "t"], "u has to wait again"
    scene.node("w", at_once=1)
    assert sent(scene.do(cancelled(task_id="first"))) == [("t", "w")]


def test_a_task_that_is_revived_in_front_of_one_that_runs_waits_for_it() -> None:
    scene = Scene()
    scene.node("w")
    scene.submit("first", "other")
    lease = scene.run("u")
    assert sent(scene.do(requeued(known=replace(ENDED, seq=0)))) == []
    assert scene.state.turn("c") == "u"
    assert sent(scene.finish(lease.task_id)) == [("t", "w")]


def test_a_failed_task_is_requeued_before_its_wait_is_over() -> None:
    scene = Scene()
    scene.node("w")
    scene.run("t")
    assert only(scene.finish("t", success=False), TaskChanged).task.status is FAILED
    effects = scene.do(requeued())
    assert "task t" in [disarm.name for disarm in all_of(effects, Disarm)]
    assert sent(effects) == [("t", "w")]
    scene.take("t")
    scene.refused(requeued(), WrongStateError, "t is running")


def test_where_contexts_are_not_serial_their_tasks_run_at_once() -> None:
    scene = Scene(serial=False)
    scene.submit("t")
    scene.submit("u")
    assert sent(scene.node("w", at_once=3)) == [("t", "w"), ("u", "w")]
    assert sent(scene.do(requeued(task_id="x", known=replace(ENDED, id="x", seq=0)))) == [("x", "w")]
