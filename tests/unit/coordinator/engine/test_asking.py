"""Workers that are not nodes: each asks for a task, and a repeated nonce is answered with the same lease."""

import pytest
from msgspec.structs import replace

from membridge.errors import ConflictError, LeaseLostError, NotFoundError
from schemas.leases import Leased
from schemas.tasks import TaskStatus
from schemas.workers import Registration, Worker, WorkerStatus
from services.coordinator.engine.effects import NewLease, NewWorker, Reply, ReplyOrder, Send, TaskChanged
from services.coordinator.engine.events import Asked, Cancelled, Drained, Introduced, UnreadError
from services.coordinator.engine.machine import WrongStateError
from tests.fixtures.task_engine.scene import WALL, Scene, all_of, asked, only, reported

RUNNING = TaskStatus.RUNNING


def given(scene: Scene, event: Asked) -> str | None:
    """Return the task that a worker is given, None for none."""
    answers = all_of(scene.do(event), ReplyOrder)
    return answers[0].task.id if answers else None


def test_what_a_worker_asks_for_it_runs() -> None:
    scene = Scene()
    scene.submit("t")
    effects = scene.do(asked("p"))
    order = only(effects, ReplyOrder)
    assert (order.task.status, order.task.worker_id, order.lease.id) == (RUNNING, "p", "l")
    assert (scene.status("t"), all_of(effects, Send)) == (RUNNING, [])
    scene.do(reported(order.lease))


def test_a_worker_is_registered_without_a_task() -> None:
    scene = Scene()
    scene.submit("t")
    effects = scene.do(Introduced(Registration(worker_id="p", labels=["gpu"])))
    worker = only(effects, Reply).value
    assert isinstance(worker, Worker)
    assert (worker.id, worker.status, worker.capabilities.labels) == ("p", WorkerStatus.ONLINE, ["gpu"])
    assert worker.registered_at
    assert (only(effects, NewWorker).worker_id, all_of(effects, NewLease)) == ("p", [])
    # Told again, it is the same one.
    assert all_of(scene.do(Introduced(Registration(worker_id="p"))), NewWorker) == []
    scene.node("w")
    assert scene.refused(Introduced(Registration(worker_id="w")), ConflictError).field == "worker_id"


def test_without_a_task_the_answer_says_why() -> None:
    scene = Scene()
    assert only(scene.do(asked("p")), Reply).value == Leased(reason="no task waits that the worker may have")
    scene.submit("t")
    scene.do(Drained(worker_id="p", drained=True, actor="somebody"))
    assert only(scene.do(asked("p", task_id="t")), Reply).value == Leased(reason="the worker is drained")


def test_it_has_the_most_urgent_task_whose_labels_it_has() -> None:
    scene = Scene()
    scene.submit("plain", "a")
    scene.passed = 1.0
    scene.submit("special", "b", labels=["gpu"])
    scene.submit("urgent", "d", labels=["gpu"], priority=9)
    scene.submit("foreign", "e", labels=["tpu"], priority=9)
    order = [given(scene, asked("p", labels=["gpu"], lease_id=f"{number}")) for number in range(4)]
    assert order == ["urgent", "plain", "special", None]


def test_a_node_that_runs_is_given_its_tasks() -> None:
    scene = Scene()
    scene.node("w")
    assert scene.refused(asked("w"), ConflictError).field == "worker_id"


def test_a_repeated_nonce_returns_the_same_lease() -> None:
    scene = Scene()
    scene.submit("t")
    event = asked("p", nonce="n")
    scene.refused(event, UnreadError)
    lease = only(scene.do(replace(event, used=False)), NewLease).lease
    again = scene.do(event)
    assert (only(again, ReplyOrder).lease, all_of(again, TaskChanged)) == (lease, [])
    scene.do(reported(lease))
    scene.refused(event, UnreadError)
    scene.refused(replace(event, used=True), LeaseLostError, "of this nonce has ended")


def test_a_nonce_whose_lease_ends_within_a_batch_is_not_given_another() -> None:
    scene = Scene()
    scene.submit("t")
    scene.submit("u", "d")
    event, mark = replace(asked("p", nonce="n"), used=False), scene.state.mark()
    scene._batch([event, Cancelled(task_id="t", reason="", actor="somebody")])
    with pytest.raises(LeaseLostError, match="of this nonce has ended"):
        scene._batch([event])
    scene.state.rewind(mark)


def test_a_named_task_is_leased_if_it_can_run() -> None:
    scene = Scene()
    scene.submit("t")
    scene.submit("u")
    scene.refused(asked("p", task_id="u"), ConflictError, "task u waits: waits for task t of its context")
    assert given(scene, asked("p", task_id="t")) == "t"
    scene.refused(asked("p", task_id="t", lease_id="m"), WrongStateError, "t is running and cannot be leased")
    scene.submit("v", "d", not_before=WALL + 60.0)
    scene.refused(asked("p", task_id="v", lease_id="m"), ConflictError, "v waits: it does not begin before")


def test_a_named_task_that_is_not_live_is_looked_up() -> None:
    scene = Scene()
    event = asked("p", task_id="t")
    scene.refused(event, UnreadError)
    scene.refused(replace(event, status=None), NotFoundError, "there is no task t")
    scene.refused(replace(event, status=TaskStatus.DEAD), WrongStateError, "t is dead and cannot be leased")


def test_where_contexts_are_not_serial_the_first_one_of_a_priority_is_named() -> None:
    scene = Scene(serial=False)
    scene.submit("t")
    scene.submit("u")
    scene.refused(asked("p", task_id="u"), ConflictError, "u waits: ")
    assert given(scene, asked("p", task_id="t")) == "t"
    assert given(scene, asked("p", task_id="u", lease_id="m")) == "u"
