"""What workers say under their leases: heartbeats, results, tasks handed back, answers to orders."""

import pytest
from msgspec.structs import replace

from membridge.errors import InvalidRequestError, LeaseLostError
from membridge.system import clock
from schemas.leases import Accepted, Lease, LeaseStatus
from schemas.tasks import TaskStatus
from schemas.workers import WorkerStatus
from services.coordinator.engine import reports
from services.coordinator.engine.effects import (
    Arm,
    Disarm,
    Hold,
    LeaseChanged,
    NewArtifact,
    NewResult,
    Release,
    Reply,
    Send,
    Stop,
    TaskChanged,
)
from services.coordinator.engine.events import Due, HandedBack, NotTaken, Renewed, Reported, Taken, Unreadable
from services.coordinator.engine.machine import BACKOFF
from services.coordinator.engine.step import claim_of
from services.coordinator.engine.workers import shown
from tests.fixtures.task_engine.scene import LOOP, WALL, Scene, all_of, only, reported, sent, submitted

QUEUED, LEASED, RUNNING = TaskStatus.QUEUED, TaskStatus.LEASED, TaskStatus.RUNNING
FAILED, COMPLETED, DEAD = TaskStatus.FAILED, TaskStatus.COMPLETED, TaskStatus.DEAD


def test_a_heartbeat_renews_the_lease_for_its_whole_time(scene: Scene) -> None:
    lease = scene.lease("t")
    scene.passed += 100.0
    effects = scene.do(Renewed(claim_of(lease)))
    fresh = only(effects, LeaseChanged).lease
    assert fresh.expires_at == clock.stamp(WALL + 100.0 + lease.ttl_seconds)
    assert [(arm.name, arm.at) for arm in all_of(effects, Arm)] == [(f"lease {lease.id}", LOOP + 100.0 + 300.0)]
    assert (only(effects, Hold).lease, only(effects, Reply).value, scene.lease("t")) == (fresh, fresh, fresh)


def test_a_lease_outlives_the_timeout_of_its_task() -> None:
    scene = Scene()
    scene.node("w")
    assert scene.run("t", timeout_sec=3_600).ttl_seconds == 3_630


def test_a_claim_names_the_active_lease_of_its_worker(scene: Scene) -> None:
    claim = claim_of(scene.lease("t"))
    scene.submit("u")
    wrong = [replace(claim, lease_id="x"), replace(claim, task_id="x"), replace(claim, task_id="u")]
    for one in wrong:
        for event in (Renewed(one), HandedBack(one)):
            scene.refused(event, LeaseLostError, "has ended")
    scene.refused(Renewed(replace(claim, worker_id="x")), LeaseLostError, "is not worker x's")


def test_a_success_ends_the_task_and_the_next_of_its_context_begins(scene: Scene) -> None:
    lease = scene.lease("t")
    scene.submit("u")
    effects = scene.do(reported(lease, session="s"))
    result, artifact = only(effects, NewResult), only(effects, NewArtifact)
    assert (result.lease_id, result.session, result.result.artifact_id) == (lease.id, "s", artifact.artifact.id)
    assert result.result.output == "o"
    assert [(one.task.id, one.task.status) for one in all_of(effects, TaskChanged)] == [("t", COMPLETED), ("u", LEASED)]
    assert only(effects, LeaseChanged).lease.status is LeaseStatus.RELEASED
    assert (only(effects, Release).lease.id, only(effects, Reply).value) == (lease.id, Accepted(accepted=True))
    send = only(effects, Send)
    assert (send.task.id, send.session) == ("u", "s"), "it resumes the session on the worker that has it"
    scene.refused(reported(lease), LeaseLostError)


def test_an_error_waits_for_the_next_attempt_until_there_is_none_left() -> None:
    scene = Scene()
    scene.node("w")
    scene.submit("t", max_attempts=2)
    effects = scene.do(reported(scene.take("t"), success=False, chance=0.5))
    failed = all_of(effects, TaskChanged)[0].task
    assert (failed.status, failed.reason, failed.not_before) == (FAILED, "e", WALL + BACKOFF * 1.25)
    assert only(effects, LeaseChanged).lease.status is LeaseStatus.FAILED
    assert only(effects, NewResult).result.error_message == "e"
    assert [arm.at for arm in all_of(effects, Arm) if arm.event == Due("t")] == [LOOP + BACKOFF * 1.25]
    assert sent(scene.do(Due("t"))) == [("t", "w")]
    assert all_of(scene.finish("t", success=False), TaskChanged)[0].task.status is DEAD
    assert scene.status("t") is None


def test_the_reason_and_the_audit_have_the_beginning_of_a_long_error(scene: Scene) -> None:
    event = reported(scene.lease("t"), success=False)
    long = replace(event, report=replace(event.report, error_message="e" * 5_000))
    effects = scene.do(long)
    assert len(only(effects, TaskChanged).task.reason) == reports.REASON
    assert only(effects, NewResult).result.error_message == "e" * 5_000


def test_a_report_says_what_it_reports(scene: Scene) -> None:
    success = reported(scene.lease("t"))
    error = reported(scene.lease("t"), success=False)
    lacks = [(replace(success, artifact=None), "output")]
    lacks += [
        (replace(error, report=replace(error.report, error_message=none)), "error_message") for none in (None, "")
    ]
    for event, field in lacks:
        assert scene.refused(event, InvalidRequestError).field == field


def test_a_result_without_an_artifact_has_the_output_that_the_error_came_with(scene: Scene) -> None:
    error = reported(scene.lease("t"), success=False)
    effects = scene.do(replace(error, report=replace(error.report, output="half")))
    assert only(effects, NewResult).result.output == "half"


def test_a_session_lasts_while_the_context_stays_with_its_worker() -> None:
    scene = Scene()
    scene.node("w")
    for name, session, resumes in [("a", "s", None), ("b", None, "s"), ("c", None, "s")]:
        assert only(scene.do(submitted(name)), Send).session == resumes
        scene.do(reported(scene.take(name), session=session))
    scene.node("w", status=WorkerStatus.OFFLINE)
    scene.node("x")
    assert only(scene.do(submitted("d")), Send).session is None
    scene.do(reported(scene.take("d")))
    assert scene.state.ties["c"].worker_id == "x"
    assert scene.state.ties["c"].session is None


def test_the_contexts_that_ran_last_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reports, "CONTEXTS", 2)
    scene = Scene()
    scene.node("w")
    for number, context in enumerate("abac"):
        scene.run(f"{number}", context)
        scene.finish(f"{number}")
    assert list(scene.state.ties) == ["a", "c"]


def test_a_task_that_is_handed_back_burns_no_attempt_and_goes_elsewhere(scene: Scene) -> None:
    scene.node("x", at_once=1)
    claim = claim_of(scene.lease("t"))
    effects = scene.do(HandedBack(replace(claim, reason="it stops")))
    back, again = (one.task for one in all_of(effects, TaskChanged))
    assert (back.status, back.attempts, back.interruptions, back.reason) == (QUEUED, 0, 1, "it stops")
    assert (again.status, again.worker_id, sent(effects)) == (LEASED, "x", [("t", "x")])
    worker = shown(scene.state, "w")
    assert (worker.status, worker.detail, worker.active_leases) == (WorkerStatus.SYNCING, "it stops", 0)
    claim = claim_of(scene.lease("t"))
    assert all_of(scene.do(HandedBack(claim)), TaskChanged)[0].task.reason == "handed back"


def test_an_order_that_is_taken_starts_its_task() -> None:
    scene = Scene()
    scene.node("w")
    scene.submit("t")
    taken = Taken(claim_of(scene.lease("t")))
    assert only(scene.do(taken), TaskChanged).task.status is RUNNING
    assert all_of(scene.do(taken), TaskChanged) == [], "said twice"


def test_an_order_that_is_rejected_goes_elsewhere() -> None:
    scene = Scene()
    scene.node("w", at_once=1)
    scene.submit("t")
    scene.node("x", at_once=1)
    claim = claim_of(scene.lease("t"))
    effects = scene.do(NotTaken(claim, "it is full"))
    assert all_of(effects, TaskChanged)[0].task.reason == "w did not take it: it is full"
    assert (sent(effects), all_of(effects, Stop)) == ([("t", "x")], [])
    assert shown(scene.state, "w").detail == "it is full"
    assert sent(scene.do(NotTaken(claim, "it is full"))) == [], "said twice"


def test_an_order_whose_answer_is_lost_is_stopped() -> None:
    scene = Scene()
    scene.node("w")
    scene.submit("t")
    lost = NotTaken(claim_of(scene.lease("t")), "no answer", unknown=True)
    assert only(scene.do(lost), Stop).claim == lost.claim
    assert only(scene.do(lost), Stop).claim == lost.claim, "the lease has ended: nothing may run under it"


def test_a_task_that_runs_although_the_answer_is_lost_is_not_stopped(scene: Scene) -> None:
    lost = NotTaken(claim_of(scene.lease("t")), "no answer", unknown=True)
    assert all_of(scene.do(lost), Stop) == []
    assert scene.status("t") is RUNNING


def test_an_order_that_cannot_be_read_is_tried_again_at_once_and_then_after_a_pause() -> None:
    scene = Scene()
    scene.node("w")
    scene.submit("t")
    assert sent(scene.do(_unreadable(scene.lease("t")))) == [("t", "w")]
    for interruptions in (1, 2):
        effects = scene.do(_unreadable(scene.lease("t")))
        pause = BACKOFF * 2 ** (interruptions - 1)
        assert only(effects, TaskChanged).task.not_before == WALL + pause
        assert [arm.at for arm in all_of(effects, Arm) if arm.event == Due("t")] == [LOOP + pause]
        assert sent(scene.do(Due("t"))) == [("t", "w")]
    lease = scene.lease("t")
    scene.finish("t")
    assert all_of(scene.do(_unreadable(lease)), TaskChanged) == []


def test_what_ends_disarms_its_timer(scene: Scene) -> None:
    lease = scene.lease("t")
    assert f"lease {lease.id}" in [one.name for one in all_of(scene.finish("t"), Disarm)]


def _unreadable(lease: Lease) -> Unreadable:
    return Unreadable(claim_of(lease), "the database does not answer")


def test_an_attempt_is_reported_once(scene: Scene) -> None:
    event: Reported = reported(scene.lease("t"))
    scene.do(event)
    scene.refused(event, LeaseLostError)
