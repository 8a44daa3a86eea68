"""The workers alone: why each takes no task is what it is, and how many it holds is what it was given."""

import pytest
from msgspec.structs import replace

from membridge.errors import NotFoundError, RefusedError
from schemas.workers import Capabilities, Worker, WorkerStatus
from services.coordinator.routing import eligible
from services.coordinator.workers import Workers

ABLE = Capabilities(claude_cli=True, max_concurrency=2)
WORKER = Worker(id="w", node_id="w", status=WorkerStatus.ONLINE, capabilities=ABLE)


def declines(workers: Workers) -> str:
    (only,) = workers.candidates()
    return eligible((), only)


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
    workers = Workers()
    workers.hear(replace(WORKER, status=status, detail=detail), 1.0)
    assert declines(workers) == why


def test_drained_is_not_offline_and_offline_is_not_drained() -> None:
    workers = Workers({"w": ("2026-01-01T00:00:00+00:00", True)})
    workers.hear(WORKER, 1.0)
    assert declines(workers) == "is drained"
    assert (workers.get("w").status, workers.get("w").detail) == (WorkerStatus.SYNCING, "drained")
    workers.lose("w", WorkerStatus.OFFLINE, "not heard of")
    assert declines(workers) == "is offline"
    workers.hear(WORKER, 2.0)
    workers.drain("w", drained=False)
    assert declines(workers) == ""


def test_a_worker_that_holds_a_lease_of_an_earlier_tenure_stays_drained() -> None:
    workers = Workers({"w": ("2026-01-01T00:00:00+00:00", True)})
    workers.give("w")
    workers.hear(WORKER, 1.0)
    assert declines(workers) == "is drained"


@pytest.mark.parametrize("status", [WorkerStatus.ERROR, WorkerStatus.ONLINE])
def test_without_the_program_is_not_offline(status: WorkerStatus) -> None:
    workers = Workers()
    lacks = Capabilities(claude_cli=False)
    workers.hear(replace(WORKER, status=status, capabilities=lacks, detail="there is no claude program"), 1.0)
    assert declines(workers) == "has no claude program"


def test_a_worker_that_did_not_take_a_task_has_the_next_chance_when_it_is_heard_of() -> None:
    workers = Workers()
    workers.hear(WORKER, 1.0)
    workers.lose("w", WorkerStatus.UNKNOWN, "it runs 2 tasks already")
    assert declines(workers) == "did not take its last task: it runs 2 tasks already"
    assert workers.hear(WORKER, 2.0)
    assert declines(workers) == ""


def test_one_that_only_holds_a_lease_was_not_heard_of() -> None:
    workers = Workers()
    workers.give("w")
    assert declines(workers) == "has not been heard of yet"
    workers.hear(WORKER, 1.0)
    assert (declines(workers), workers.get("w").active_leases) == ("", 1)


def test_what_a_worker_holds_is_counted_here() -> None:
    workers = Workers()
    workers.hear(WORKER, 1.0)
    workers.give("w")
    workers.give("w")
    (only,) = workers.candidates()
    assert (only.active, only.is_full) == (2, True)
    assert not workers.hear(replace(WORKER, active_leases=9), 2.0)
    for _ in range(3):
        workers.take("w")
    assert workers.candidates()[0].active == 0
    workers.take("nobody")


def test_silence_is_told_of_those_that_are_believed_to_be_there() -> None:
    workers = Workers()
    workers.hear(WORKER, 1.0)
    workers.hear(replace(WORKER, id="x"), 5.0)
    assert workers.silent_since(3.0) == ["w"]
    workers.lose("w", WorkerStatus.OFFLINE, "not heard of")
    workers.lose("nobody", WorkerStatus.OFFLINE, "not heard of")
    assert workers.silent_since(3.0) == []


def test_a_worker_is_written_down_once() -> None:
    workers = Workers()
    assert len(workers.register(WORKER, "2026-01-01T00:00:00+00:00")) == 1
    assert workers.register(WORKER, "2026-01-02T00:00:00+00:00") == []
    workers.hear(WORKER, 1.0)
    assert [one.registered_at for one in workers.all()] == ["2026-01-01T00:00:00+00:00"]
    with pytest.raises(NotFoundError):
        workers.get("nobody")


@pytest.mark.parametrize(("holds", "says"), [(1, "worker w holds 1 task"), (2, "worker w holds 2 tasks")])
def test_a_worker_that_holds_tasks_is_not_removed(holds: int, says: str) -> None:
    workers = Workers()
    workers.hear(WORKER, 1.0)
    for _ in range(holds):
        workers.give("w")
    with pytest.raises(RefusedError) as caught:
        workers.check_removable("w")
    assert caught.value.message == says
