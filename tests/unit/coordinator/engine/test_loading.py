"""A tenure begins: what the database and KV have becomes the state, and what does not fit together is mended."""

from collections.abc import Iterable

from msgspec.structs import replace

from membridge.system import clock
from schemas.leases import Lease, LeaseStatus
from schemas.tasks import TaskStatus
from services.coordinator.engine.effects import Arm, Effect, LeaseChanged, Send, TaskChanged
from services.coordinator.engine.events import Due
from services.coordinator.engine.machine import TaskState
from services.coordinator.engine.state import Recorded
from services.coordinator.engine.workers import given_to, shown
from tests.fixtures.task_engine.scene import LOOP, WALL, Scene, all_of, loaded, only, sent, submitted

QUEUED, LEASED, RUNNING = TaskStatus.QUEUED, TaskStatus.LEASED, TaskStatus.RUNNING
FAILED, DEAD = TaskStatus.FAILED, TaskStatus.DEAD


def task(name: str, seq: int, status: TaskStatus = QUEUED, context: str = "c", **more: object) -> TaskState:
    held: dict[str, object] = (
        {"lease_id": f"l-{name}", "worker_id": "w", "attempts": 1} if status in {LEASED, RUNNING} else {}
    )
    made = TaskState(
        id=name, context_id=context, status=status, priority=5, max_attempts=3, labels=frozenset(), timeout_sec=120,
        seq=seq,
    )  # fmt: skip
    return replace(made, **{**held, **more})


def lease(name: str, *, left: float = 100.0, context: str = "c") -> Lease:
    return Lease(
        id=f"l-{name}", task_id=name, worker_id="w", started_at=clock.stamp(WALL - 200.0), context_id=context,
        expires_at=clock.stamp(WALL + left), last_heartbeat=clock.stamp(WALL - 200.0),
    )  # fmt: skip


def begun(tasks: Iterable[TaskState] = (), leases: Iterable[Lease] = (), **more: object) -> tuple[Scene, list[Effect]]:
    scene = Scene()
    return scene, scene.do(loaded(tasks=[*tasks], leases=[*leases], **more))


def expiries(effects: list[Effect]) -> list[float]:
    return [effect.at for effect in effects if isinstance(effect, Arm) and effect.name.startswith("lease")]


def test_a_lease_has_what_is_left_of_its_time() -> None:
    for left, expected in [(100.0, 100.0), (-5.0, 0.0), (9_000.0, 300.0)]:
        _, effects = begun([task("t", 1, RUNNING)], [lease("t", left=left)])
        assert expiries(effects) == [LOOP + expected]


def test_a_lease_that_kv_has_expires_there() -> None:
    scene, effects = begun([task("t", 1, RUNNING)], [lease("t", left=-5.0)], kept=frozenset({"l-t"}))
    assert expiries(effects) == [LOOP + 300.0]
    assert scene.state.leases["l-t"].by_server


def test_what_is_held_has_the_turn_and_what_waits_has_its_timer() -> None:
    tasks = [
        task("first", 1), task("runs", 2, RUNNING), task("failed", 3, FAILED, "d", not_before=WALL + 7.0),
        task("later", 4, context="e", not_before=WALL + 9.0), task("ready", 5, context="f"),
    ]  # fmt: skip
    scene, effects = begun(tasks, [lease("runs")], seq=5)
    assert (scene.state.turn("c"), list(scene.state.ready_since)) == ("runs", ["ready"])
    assert {(arm.event, arm.at) for arm in effects if isinstance(arm, Arm) and arm.name.startswith("task")} == {
        (Due("failed"), LOOP + 7.0), (Due("later"), LOOP + 9.0),
    }  # fmt: skip
    assert scene.submit("next").seq == 6
    assert sent(scene.node("w", at_once=3)) == [("ready", "w")]
    assert sent(scene.finish("runs")) == [("first", "w")]


def test_a_task_without_its_lease_is_taken_back() -> None:
    tasks = [task("t", 1, RUNNING), task("dead", 2, LEASED, "d", attempts=3), task("next", 3, context="d")]
    scene, effects = begun(tasks)
    back, dead = (effect.task for effect in effects if isinstance(effect, TaskChanged))
    assert (back.status, back.attempts, back.lease_id, dead.status) == (QUEUED, 1, None, DEAD)
    assert set(scene.state.ready_since) == {"t", "next"}
    _, none = begun([replace(task("t", 1, RUNNING), lease_id=None)])
    assert [effect.task.status for effect in none if isinstance(effect, TaskChanged)] == [QUEUED]


def test_a_lease_without_its_task_is_ended() -> None:
    scene, effects = begun([task("t", 1)], [lease("t"), lease("gone")])
    ended = [effect.lease for effect in effects if isinstance(effect, LeaseChanged)]
    assert [(one.id, one.status) for one in ended] == [("l-t", LeaseStatus.EXPIRED), ("l-gone", LeaseStatus.EXPIRED)]
    assert (scene.state.leases, list(scene.state.ready_since)) == ({}, ["t"])


def test_a_worker_may_never_have_received_what_was_leased() -> None:
    scene, _ = begun([task("t", 1, LEASED), task("u", 2, RUNNING, "d")], [lease("t"), lease("u", context="d")])
    assert given_to(scene.state, "w") == {"l-t", "l-u"}
    assert (scene.state.leases["l-t"].unconfirmed, scene.state.leases["l-u"].unconfirmed) == (True, False)
    assert shown(scene.state, "w").active_leases == 2


def test_contexts_stay_with_the_worker_that_ran_them_last() -> None:
    last = [("c", "x", "old"), ("c", "w", "s"), ("c", "w", None), ("d", "x", None)]
    scene, _ = begun(last=last, workers={"w": Recorded("2026-01-01T00:00:00+00:00", drained=True)})
    scene.node("w")
    scene.node("x")
    assert shown(scene.state, "w").detail == "drained"
    assert sent(scene.do(submitted("t"))) == [("t", "x")]
    assert scene.state.ties["c"].session == "s"
    assert only(scene.do(submitted("u", "d")), Send).lease.worker_id == "x"


def test_tasks_of_one_context_that_ran_at_once_before_contexts_were_serial_end_one_by_one() -> None:
    tasks = [task("t", 1, RUNNING), task("u", 2, RUNNING), task("v", 3)]
    scene, _ = begun(tasks, [lease("t"), lease("u")])
    scene.node("w", at_once=4)
    assert sent(scene.finish("t")) == []
    assert sent(scene.finish("u")) == [("v", "w")]
    assert all_of(scene.finish("v"), TaskChanged)[0].task.id == "v"
