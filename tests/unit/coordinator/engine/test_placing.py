"""Which ready task goes to which worker: order, fairness between contexts, patience; and what a task waits for."""

from schemas.workers import WorkerStatus
from services.coordinator.engine.effects import Arm, Disarm
from services.coordinator.engine.events import Drained, Stirred
from services.coordinator.engine.placing import explain
from services.coordinator.engine.routing import PATIENCE
from services.coordinator.engine.state import Known
from tests.fixtures.task_engine.scene import LOOP, WALL, Scene, all_of, only, sent, submitted, worker_of


def drawn(scene: Scene, number: int) -> list[str]:
    """Let a worker with one place run so many tasks; return them in their order."""
    found = []
    for _ in range(number):
        (lease,) = (held.lease for held in scene.state.leases.values())
        found.append(lease.task_id)
        scene.take(lease.task_id)
        scene.finish(lease.task_id)
    return found


def why(scene: Scene, name: str) -> str:
    return explain(scene.state, scene.state.tasks[name], scene.now.loop)


def test_contexts_take_turns_and_each_keeps_its_order() -> None:
    for serial in (True, False):
        scene = Scene(serial=serial)
        for number in range(3):
            scene.submit(f"a{number}", "a")
        scene.submit("b0", "b")
        scene.node(at_once=1)
        assert drawn(scene, 2) == ["a0", "b0"]
        scene.submit("c0", "c")
        # Where contexts are serial, the next task of one comes in once the one before it has ended.
        assert drawn(scene, 3) == (["a1", "c0", "a2"] if serial else ["a1", "a2", "c0"])
        assert scene.state.lanes == {}


def test_a_context_with_many_tasks_does_not_hold_up_the_others() -> None:
    scene = Scene()
    scene.node(at_once=1)
    for number in range(20):
        scene.submit(f"many{number}", "many")
    for number in range(3):
        scene.submit(f"one{number}", f"one{number}")
    order = drawn(scene, 6)
    assert {name for name in order if name.startswith("one")} == {"one0", "one1", "one2"}


def test_the_urgent_come_first() -> None:
    scene = Scene()
    scene.submit("later", "a", priority=1)
    scene.submit("soon", "b", priority=9)
    scene.submit("next", "c")
    scene.node(at_once=1)
    assert drawn(scene, 3) == ["soon", "next", "later"]


def test_a_task_goes_to_the_least_busy_worker() -> None:
    scene = Scene()
    scene.node("w", at_once=3)
    scene.node("x", at_once=3)
    found = [sent(scene.do(submitted(name, name)))[0][1] for name in "abcd"]
    assert sorted(found) == ["w", "w", "x", "x"]


def test_workers_are_filled_and_no_more() -> None:
    scene = Scene()
    for name in "abcde":
        scene.submit(name, name)
    scene.submit("gpu", "f", labels=["gpu"])
    scene.submit("tpu", "g", labels=["tpu"])
    assert len(sent(scene.node("w", at_once=2))) == 2
    assert sent(scene.node("x", at_once=1, labels=["gpu"])) == [("c", "x")], "x takes plain tasks too"
    assert why(scene, "gpu") == "all eligible workers are full"
    assert why(scene, "tpu") == "no eligible worker because w lacks tpu; x lacks tpu"


def test_a_full_worker_that_knows_the_context_is_waited_for_a_while() -> None:
    scene = Scene()
    scene.node("w", at_once=1)
    for name in ("a", "b"):
        scene.run(name, name)
        scene.finish(name)
    scene.run("busy", "busy")
    scene.node("x", at_once=4)
    for name in ("a", "b"):
        effects = scene.do(submitted(f"{name}2", name))
        arm = next(one for one in all_of(effects, Arm) if one.name == "patience")
        assert (arm.at, arm.event, sent(effects)) == (LOOP + PATIENCE, Stirred(), [])
        scene.passed += 2.0
    assert why(scene, "a2") == "waiting for w, which knows this context"
    scene.passed = PATIENCE
    effects = scene.do(Stirred())
    assert sent(effects) == [("a2", "x")]
    assert [one.at for one in all_of(effects, Arm) if one.name == "patience"] == [LOOP + PATIENCE + 2.0]
    scene.passed = PATIENCE + 2.0
    effects = scene.do(Stirred())
    assert sent(effects) == [("b2", "x")]
    assert only([one for one in effects if one == Disarm("patience")], Disarm)


def test_a_worker_that_knows_the_context_has_its_next_task() -> None:
    scene = Scene()
    scene.node("w", at_once=4)
    scene.run("a")
    scene.finish("a")
    scene.node("x", at_once=4)
    scene.run("busy", "busy")
    assert sent(scene.do(submitted("b"))) == [("b", "w")]
    scene.take("b")
    scene.finish("b")
    scene.passed = 3_600.0
    assert sent(scene.do(submitted("c"))) == [("c", "w" if scene.lease("busy").worker_id == "x" else "x")]


def test_what_a_task_waits_for() -> None:
    scene = Scene()
    for name in ("t", "u"):
        scene.submit(name)
    assert why(scene, "t") == "no eligible worker because there is none"
    assert why(scene, "u") == "waits for task t of its context, which waits too: " + why(scene, "t")
    scene.node("w")
    assert why(scene, "u") == "waits for task t of its context, which runs on w"
    assert why(scene, "t") == ""
    scene.take("t")
    scene.finish("t", success=False)
    assert why(scene, "t").startswith("its next attempt begins at 2027-01-15T")
    scene.submit("v", "d", not_before=WALL + 60.0)
    assert why(scene, "v").startswith("it does not begin before 2027-01-15T")
    assert why(scene, "u").startswith("waits for task t of its context, which waits too: its next attempt")
    scene.do(Drained(worker_id="w", drained=True, actor="somebody"))
    scene.submit("x", "e")
    assert why(scene, "x") == "no eligible worker because w is drained"
    scene.node("y", status=WorkerStatus.ERROR)


def test_a_task_whose_turn_comes_next_waits_for_nothing() -> None:
    scene = Scene()
    scene.submit("t")
    scene.submit("u")
    scene.state.put(scene.state.workers, "w", _free())
    assert why(scene, "u") == "waits for task t of its context"


def test_where_contexts_are_not_serial_their_tasks_begin_in_order() -> None:
    scene = Scene(serial=False)
    scene.submit("t")
    scene.submit("u")
    scene.state.put(scene.state.workers, "w", _free())
    assert (why(scene, "t"), why(scene, "u")) == ("", "an earlier task of its context begins first")


def _free() -> Known:
    return Known(worker=worker_of("w"), heard=1.0)
