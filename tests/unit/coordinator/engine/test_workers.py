"""The workers of a tenure: why each takes no task, how many it holds, who is drained, removed, silent or believed."""

import pytest
from msgspec.structs import replace

from membridge.errors import NotFoundError, RefusedError
from schemas.leases import LeaseStatus
from schemas.tasks import TaskStatus
from schemas.workers import Capabilities, Worker, WorkerStatus
from services.coordinator.engine import workers
from services.coordinator.engine.effects import (
    LeaseChanged,
    NewWorker,
    Noted,
    Reply,
    TaskChanged,
    WorkerDrained,
    WorkerRemoved,
)
from services.coordinator.engine.events import Believed, Drained, Removed, Renewed, Silent, UnreadError
from services.coordinator.engine.routing import eligible
from services.coordinator.engine.state import Recorded
from services.coordinator.engine.step import claim_of
from tests.fixtures.task_engine.scene import Scene, all_of, asked, loaded, only, sent, worker_of
from tests.unit.coordinator.engine.test_expiry import kept

QUEUED, LEASED, RUNNING = TaskStatus.QUEUED, TaskStatus.LEASED, TaskStatus.RUNNING
DRAINED = loaded(workers={"w": Recorded("2026-01-01T00:00:00+00:00", drained=True)})


def declines(scene: Scene) -> str:
    return eligible((), workers.candidates(scene.state)["w"])


def drained(*, drained: bool = True) -> Drained:
    return Drained(worker_id="w", drained=drained, actor="somebody")


REMOVED = Removed(worker_id="w", actor="somebody")


@pytest.mark.parametrize(
    ("status", "detail", "why"),
    [
        (WorkerStatus.ONLINE, "", ""),
        (WorkerStatus.ONLINE, "anything", ""),
        (WorkerStatus.OFFLINE, "not heard of", "is offline"),
        (WorkerStatus.SYNCING, "", "is starting or stopping"),
        (WorkerStatus.SYNCING, "its worker stopped", "takes no more tasks: its worker stopped"),
        (WorkerStatus.ERROR, "its disk is full", "has an error: its disk is full"),
        (WorkerStatus.ERROR, "", "has an error"),
        (WorkerStatus.UNKNOWN, "", "has not been heard of yet"),
        (WorkerStatus.UNKNOWN, "no answer", "did not take its last task: no answer"),
    ],
)
def test_why_a_worker_takes_no_task(status: WorkerStatus, detail: str, why: str) -> None:
    scene = Scene()
    scene.node(status=status, detail=detail)
    assert declines(scene) == why


@pytest.mark.parametrize("status", [WorkerStatus.ERROR, WorkerStatus.ONLINE])
def test_without_the_program_is_not_offline(status: WorkerStatus) -> None:
    scene = Scene()
    scene.node(status=status, capabilities=Capabilities(claude_cli=False), detail="there is no claude program")
    assert declines(scene) == "has no claude program"


def test_a_worker_is_written_once() -> None:
    scene = Scene()
    first = scene.node()
    assert only(first, NewWorker).worker_id == "w"
    assert (only(first, Noted).action, only(first, Noted).entity_type) == ("registered", "worker")
    assert all_of(scene.node(), NewWorker) == []
    assert [worker.registered_at for worker in workers.all_shown(scene.state)] == [scene.now.stamp]
    with pytest.raises(NotFoundError):
        workers.shown(scene.state, "nobody")


def test_drained_is_not_offline_and_offline_is_not_drained() -> None:
    scene = Scene()
    scene.do(DRAINED)
    assert workers.shown(scene.state, "w").status is WorkerStatus.OFFLINE, "it is known, and was not heard of"
    scene.node()
    assert declines(scene) == "is drained"
    shown = workers.shown(scene.state, "w")
    assert (shown.status, shown.detail) == (WorkerStatus.SYNCING, "drained")
    scene.do(Silent(("w", "unknown")))
    assert declines(scene) == "is offline"
    scene.node()
    effects = scene.do(drained(drained=False))
    assert declines(scene) == ""
    assert only(effects, WorkerDrained) == WorkerDrained("w", drained=False)
    assert (only(effects, Noted).action, only(effects, Reply).value) == ("resumed", workers.shown(scene.state, "w"))


def test_a_drained_worker_finishes_its_tasks_and_gets_no_more() -> None:
    scene = Scene()
    scene.node()
    scene.run("t")
    effects = scene.do(drained())
    assert only(effects, Noted).action == "drained"
    scene.submit("u", "d")
    scene.finish("t")
    assert scene.status("u") is QUEUED
    assert sent(scene.do(drained(drained=False))) == [("u", "w")]
    scene.refused(Drained(worker_id="x", drained=True, actor="somebody"), NotFoundError)


def test_a_worker_that_did_not_take_a_task_has_the_next_chance_when_it_is_heard_of() -> None:
    scene = Scene()
    scene.node(status=WorkerStatus.UNKNOWN, detail="it runs 2 tasks already")
    scene.submit("t")
    assert sent(scene.node()) == [("t", "w")]


def test_one_that_only_holds_a_lease_was_not_heard_of() -> None:
    scene = kept()
    assert declines(scene) == "has not been heard of yet"
    assert not workers.takes_orders(scene.state, "w")
    scene.node()
    assert (declines(scene), workers.shown(scene.state, "w").active_leases) == ("", 1)
    assert workers.takes_orders(scene.state, "w")


def test_what_a_worker_holds_is_counted_here() -> None:
    scene = Scene()
    scene.node(at_once=2)
    scene.run("t")
    scene.run("u", "d")
    assert workers.candidates(scene.state)["w"].is_full
    scene.node(at_once=2, active_leases=9)
    assert workers.shown(scene.state, "w").active_leases == 2
    scene.finish("t")
    assert workers.shown(scene.state, "w").active_leases == 1


def test_silence_is_told_of_those_that_are_believed_to_be_there() -> None:
    scene = Scene()
    scene.node("w")
    scene.passed = 5.0
    scene.node("x")
    assert workers.silent_since(scene.state, scene.now.loop - 1.0) == ("w",)
    scene.do(Silent(("w",)))
    assert workers.silent_since(scene.state, scene.now.loop - 1.0) == ()
    assert not workers.takes_orders(scene.state, "w")


def test_a_task_that_waits_for_its_worker_goes_elsewhere_when_that_is_silent() -> None:
    scene = Scene()
    scene.node("w", at_once=1)
    scene.run("a")
    scene.finish("a")
    scene.run("b", "other")
    scene.node("x")
    scene.submit("c")
    assert scene.status("c") is QUEUED, "w knows its context, and is full"
    assert sent(scene.do(Silent(("w",)))) == [("c", "x")]


@pytest.mark.parametrize(("holds", "says"), [(1, "worker w holds 1 task"), (2, "worker w holds 2 tasks")])
def test_a_worker_that_holds_tasks_is_not_removed(holds: int, says: str) -> None:
    scene = Scene()
    scene.node()
    for number in range(holds):
        scene.run(f"{number}", f"{number}")
    assert scene.refused(REMOVED, RefusedError).message == says


def test_a_worker_is_removed_once_it_is_offline() -> None:
    scene = Scene()
    scene.refused(REMOVED, NotFoundError)
    scene.node()
    assert scene.refused(REMOVED, RefusedError).message == "worker w is online: it would be back within seconds"
    scene.do(Silent(("w",)))
    effects = scene.do(REMOVED)
    assert (only(effects, WorkerRemoved).worker_id, only(effects, Noted).action) == ("w", "removed")
    assert isinstance(only(effects, Reply).value, Worker)
    assert (scene.state.workers, scene.state.recorded) == ({}, {})
    assert len(all_of(scene.node(), NewWorker)) == 1


def test_a_worker_that_asks_for_tasks_can_be_removed_at_any_time() -> None:
    scene = Scene()
    scene.do(asked("w"))
    scene.do(REMOVED)
    assert scene.state.workers == {}


def test_a_worker_of_an_earlier_tenure_can_be_removed() -> None:
    scene = Scene()
    scene.do(DRAINED)
    scene.do(REMOVED)
    assert workers.all_shown(scene.state) == []


def test_a_worker_whose_row_is_written_in_the_same_batch_is_removed_in_the_next() -> None:
    scene = Scene()
    scene.do(DRAINED)
    mark = scene.state.mark()
    scene._batch([drained(), asked("x")])
    for name in ("w", "x"):
        with pytest.raises(UnreadError):
            scene._batch([replace(REMOVED, worker_id=name)])
    scene.state.rewind(mark)
    scene.do(drained())
    scene.do(REMOVED)


def test_a_request_under_a_lease_is_a_word_of_a_worker_that_asks() -> None:
    scene = Scene()
    scene.submit("t")
    scene.do(asked("w"))
    claim = claim_of(scene.lease("t"))
    scene.do(Silent(("w",)))
    scene.passed = 100.0
    scene.do(Renewed(claim))
    worker = workers.shown(scene.state, "w")
    assert (worker.status, worker.last_heartbeat) == (WorkerStatus.ONLINE, scene.now.stamp)
    assert declines(scene) == "leases its tasks itself"


def test_a_worker_that_started_again_lost_what_it_ran() -> None:
    scene = Scene()
    scene.node()
    lost, runs = scene.run("t"), scene.run("u", "d")
    given = workers.given_to(scene.state, "w")
    assert given == {lost.id, runs.id}
    assert workers.given_to(scene.state, "x") == frozenset()
    effects = scene.do(Believed(worker_id="w", running=frozenset({"u"}), given=given))
    assert only(effects, LeaseChanged).lease == replace(lost, status=LeaseStatus.EXPIRED)
    assert [one.task.id for one in all_of(effects, TaskChanged)] == ["t", "t"]
    assert scene.do(Believed(worker_id="w", running=frozenset({"u"}), given=given)) == [], "one has ended since"


def test_a_task_that_its_worker_may_never_have_received_goes_back_or_has_started() -> None:
    first = Scene()
    first.node()
    for name in ("t", "u"):
        first.submit(name, name)
    scene = Scene()
    held = [first.lease(name) for name in ("t", "u")]
    scene.do(loaded(tasks=[*first.state.tasks.values()], leases=held, kept=frozenset(), seq=2))
    given = workers.given_to(scene.state, "w")
    assert given == {lease.id for lease in held}
    effects = scene.do(Believed(worker_id="w", running=frozenset({"u"}), given=given))
    back, started = sorted((one.task for one in all_of(effects, TaskChanged)), key=lambda task: task.id)
    assert (back.status, back.attempts, back.reason) == (QUEUED, 0, "w never received it")
    assert started.status is RUNNING


def test_an_order_that_is_on_its_way_is_nobody_else_s_business() -> None:
    scene = Scene()
    scene.node()
    scene.submit("t")
    given = workers.given_to(scene.state, "w")
    assert given == frozenset()
    assert scene.do(Believed(worker_id="w", running=frozenset(), given=frozenset({scene.lease("t").id}))) == []
    assert scene.status("t") is LEASED


def test_presence_of_a_worker_that_asked_before_makes_it_a_node_s() -> None:
    scene = Scene()
    scene.do(asked("w"))
    scene.submit("t")
    assert sent(scene.do(*[])) == []
    assert sent(scene.node("w")) == [("t", "w")]
    assert worker_of("w").capabilities.claude_cli
