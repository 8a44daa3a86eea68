"""The ready tasks alone: demands are apart, and a crowd hides nobody."""

from services.coordinator.engine import ready
from services.coordinator.engine.ready import CROWD
from tests.fixtures.task_engine.scene import Scene, snapshot, submitted

PLAIN: frozenset[str] = frozenset()


def names(scene: Scene, demand: frozenset[str] = PLAIN) -> list[str]:
    return [task.id for task in ready.candidates(scene.state, demand)]


def test_demands_are_apart() -> None:
    scene = Scene()
    scene.submit("plain", "a")
    scene.submit("special", "b", labels=["gpu"])
    scene.submit("urgent", "c", labels=["gpu"], priority=9)
    assert ready.demands(scene.state) == [PLAIN, frozenset({"gpu"})]
    assert (names(scene), names(scene, frozenset({"gpu"}))) == (["plain"], ["urgent", "special"])


def test_what_comes_back_keeps_its_place_in_its_context() -> None:
    scene = Scene(serial=False)
    for name in ("a0", "a1", "a2"):
        scene.submit(name, "a")
    tasks, before = scene.state.tasks, scene.state.lanes[PLAIN, 5]["a"]
    ready.withdraw(scene.state, tasks["a0"])
    assert names(scene) == ["a1"]
    ready.withdraw(scene.state, tasks["a0"])
    ready.offer(scene.state, tasks["a0"], scene.now.loop)
    ready.offer(scene.state, tasks["a0"], scene.now.loop)
    assert scene.state.lanes[PLAIN, 5]["a"] == before
    ready.withdraw(scene.state, tasks["a1"])
    assert [name for _, name in scene.state.lanes[PLAIN, 5]["a"].tasks] == ["a0", "a2"]


def test_a_task_is_next_while_it_is_the_first_of_its_context() -> None:
    scene = Scene(serial=False)
    scene.submit("t")
    scene.submit("u")
    tasks = scene.state.tasks
    assert [ready.is_next(scene.state, tasks[name]) for name in ("t", "u")] == [True, False]
    ready.withdraw(scene.state, tasks["t"])
    assert [ready.is_next(scene.state, tasks[name]) for name in ("t", "u")] == [False, True]
    assert ready.waited(scene.state, tasks["t"], 5_000.0) == 0.0


def test_a_crowd_that_cannot_run_hides_nobody() -> None:
    scene = Scene()
    scene.do(*(submitted(f"t{number}", f"c{number}") for number in range(2 * CROWD)))
    seen: set[str] = set()
    for _ in range(2):
        seen |= set(names(scene))
    assert len(seen) == 2 * CROWD


def test_a_crowd_that_was_considered_in_vain_is_as_it_was_once_that_is_taken_back() -> None:
    scene = Scene()
    scene.do(*(submitted(f"t{number}", f"c{number}") for number in range(CROWD + 1)))
    before, mark = snapshot(scene.state), scene.state.mark()
    for task in ready.candidates(scene.state, PLAIN):
        if task.id in {"t0", "t7"}:
            ready.withdraw(scene.state, task)
    assert next(iter(scene.state.lanes[PLAIN, 5])) == f"c{CROWD}"
    scene.state.rewind(mark)
    assert snapshot(scene.state) == before
