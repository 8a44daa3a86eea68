"""What ends a lease without a word from its worker: its timer, its entry in KV, a comparison of the two."""

from membridge.system import clock
from schemas.leases import Lease, LeaseStatus
from schemas.tasks import TaskStatus
from services.coordinator.engine.effects import Arm, Hold, LeaseChanged, TaskChanged
from services.coordinator.engine.events import Compared, Expired, Lapsed, Renewed
from services.coordinator.engine.machine import TaskState
from services.coordinator.engine.reports import ROUND
from services.coordinator.engine.step import claim_of
from tests.fixtures.task_engine.scene import LOOP, WALL, Scene, all_of, loaded, only, reported, sent

QUEUED, LEASED, RUNNING, DEAD = TaskStatus.QUEUED, TaskStatus.LEASED, TaskStatus.RUNNING, TaskStatus.DEAD


def kept(task: str = "t") -> Scene:
    """Return a new tenure with a task that ran before, whose lease KV has."""
    scene = Scene()
    lease = Lease(
        id="l", task_id=task, worker_id="w", started_at=clock.stamp(WALL - 60.0), expires_at=clock.stamp(WALL + 240.0),
        last_heartbeat=clock.stamp(WALL - 60.0), context_id="c",
    )  # fmt: skip
    state = TaskState(
        id=task, context_id="c", status=RUNNING, priority=5, max_attempts=3, labels=frozenset(), timeout_sec=120, seq=1,
        attempts=1, lease_id="l", worker_id="w",
    )  # fmt: skip
    scene.do(loaded(tasks=[state], leases=[lease], kept=frozenset({"l"}), seq=1))
    return scene


def test_a_lease_expires_when_its_time_is_over(scene: Scene) -> None:
    lease = scene.lease("t")
    scene.passed = 300.0
    effects = scene.do(Expired(lease.id))
    assert only(effects, LeaseChanged).lease.status is LeaseStatus.EXPIRED
    ended, again = (one.task for one in all_of(effects, TaskChanged))
    assert (ended.status, ended.attempts, ended.reason) == (QUEUED, 1, "its lease expired")
    assert (again.status, again.attempts, sent(effects)) == (LEASED, 2, [("t", "w")])
    assert scene.do(Expired(lease.id)) == [], "its timer fires once more"


def test_a_task_without_attempts_left_is_dead_when_its_lease_expires() -> None:
    scene = Scene()
    scene.node("w")
    lease = scene.run("t", max_attempts=1)
    scene.passed = 300.0
    assert only(scene.do(Expired(lease.id)), TaskChanged).task.status is DEAD


def test_a_timer_that_fires_after_a_heartbeat_of_the_same_batch_ends_nothing(scene: Scene) -> None:
    lease = scene.lease("t")
    scene.passed = 300.0
    effects = scene.do(Renewed(claim_of(lease)), Expired(lease.id))
    assert all_of(effects, TaskChanged) == []
    assert {arm.at for arm in all_of(effects, Arm)} == {LOOP + 600.0}
    assert scene.status("t") is RUNNING


def test_a_timer_that_fires_a_moment_too_early_is_armed_again(scene: Scene) -> None:
    lease = scene.lease("t")
    scene.passed = 300.0 - 1e-9
    arm = only(scene.do(Expired(lease.id)), Arm)
    assert (arm.at, arm.event) == (LOOP + 300.0, Expired(lease.id))


def test_a_heartbeat_after_the_expiry_of_the_same_batch_is_refused(scene: Scene) -> None:
    lease = scene.lease("t")
    scene.passed = 300.0
    scene.do(Expired(lease.id))
    assert lease.id not in scene.state.leases


def test_an_entry_that_expires_ends_a_lease_of_an_earlier_tenure_only(scene: Scene) -> None:
    assert scene.do(Lapsed(scene.lease("t").id), Lapsed("unknown")) == []
    earlier = kept()
    assert only(earlier.do(Lapsed("l")), TaskChanged).task.status is QUEUED


def test_a_heartbeat_makes_the_timer_decide_again() -> None:
    scene = kept()
    scene.do(Renewed(claim_of(scene.lease("t"))))
    assert scene.do(Lapsed("l")) == []


def test_a_comparison_ends_what_expired_in_kv_and_writes_what_is_missing(scene: Scene) -> None:
    lease = scene.lease("t")
    assert scene.do(Compared(frozenset({lease.id}))) == []
    scene.passed = ROUND
    assert scene.do(Compared(frozenset())) == [], "its entry may be on its way"
    scene.passed = ROUND + 1.0
    assert only(scene.do(Compared(frozenset())), Hold).lease == lease
    earlier = kept()
    assert earlier.do(Compared(frozenset({"l"}))) == []
    assert only(earlier.do(Compared(frozenset())), TaskChanged).task.status is QUEUED


def test_what_a_worker_reports_in_the_batch_of_the_expiry_counts_when_it_comes_first(scene: Scene) -> None:
    lease = scene.lease("t")
    scene.passed = 300.0
    effects = scene.do(reported(lease), Expired(lease.id))
    assert only(effects, TaskChanged).task.status is TaskStatus.COMPLETED
