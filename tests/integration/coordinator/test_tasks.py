"""A task's way through coordinator and worker, over NATS and each database."""

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest

from membridge.bus.connection import Bus
from membridge.bus.rpc import RpcClient
from membridge.errors import RemoteError
from membridge.objectstore.jetstream import ARTIFACTS, open_jetstream
from membridge.objectstore.s3.client import S3Options
from membridge.system import clock
from membridge.worker.worker import AttemptResult
from schemas import subjects
from schemas.audit import AuditRequest
from schemas.errors import ErrorCode
from schemas.leases import LeaseClaim, Order, Report
from schemas.node import Empty
from schemas.results import ArtifactRequest, Metrics, ResultStatus
from schemas.task_events import EventsRequest
from schemas.tasks import TaskRequest, TaskStatus
from schemas.workers import WorkerRequest, WorkerStatus
from services.coordinator.retirement import Retirement
from tests.fixtures.seaweed import fetch
from tests.fixtures.tasks import SOON, OpenPlace, Place, echo, place_of, soon

DAY = 86_400.0
BIG = "ü" * 700_000


async def fail(order: Order) -> AttemptResult:
    """Fail as a program that exits with 3."""
    return AttemptResult(
        ResultStatus.ERROR, Metrics(duration_ms=1), error_message=f"attempt {order.task.attempts} failed"
    )


async def refused(place: Place, operation: subjects.Operation, request: object) -> ErrorCode:  # type: ignore[type-arg]
    tokens = {"worker": request.worker_id} if isinstance(request, LeaseClaim) else {}
    with pytest.raises(RemoteError) as caught:
        await RpcClient(place.bus).request(operation, request, deadline=soon(), **tokens)  # type: ignore[arg-type]
    return caught.value.code


async def actions(place: Place, task_id: str) -> list[str]:
    audit = await RpcClient(place.bus).request(subjects.AUDIT, AuditRequest(entity_id=task_id), deadline=soon())
    return [one.action for one in reversed(audit.records)]


async def test_a_task_is_run_and_its_result_kept(opened: OpenPlace) -> None:
    async with opened() as place:
        await place.coordinator()
        await place.worker("w1")
        task = await place.submit("hello")
        done = await place.until(task.id, TaskStatus.COMPLETED)
        assert (done.attempts, done.worker_id) == (1, "w1")
        reply = await RpcClient(place.bus).request(subjects.RESULT, TaskRequest(id=task.id), deadline=soon())
        assert reply.result is not None
        assert reply.artifact is not None
        assert (reply.result.output, reply.artifact.content) == ("hello", "hello")
        assert await actions(place, task.id) == ["submitted", "leased", "started", "completed"]
        stats = await RpcClient(place.bus).request(subjects.STATS, Empty(), deadline=soon())
        assert (stats.tasks, stats.active_leases) == ({"completed": 1}, 0)


async def test_a_failing_task_is_tried_again_and_ends_dead_and_can_be_revived(opened: OpenPlace) -> None:
    async with opened() as place:
        await place.coordinator()
        worker = await place.worker("w1", fail)
        task = await place.submit("hello", max_attempts=2)
        failed = await place.until(task.id, TaskStatus.FAILED)
        assert failed.reason == "attempt 1 failed"
        assert failed.not_before is not None
        dead = await place.until(task.id, TaskStatus.DEAD)
        assert (dead.attempts, dead.reason) == (2, "attempt 2 failed")
        assert len(worker.orders) == 2
        revived = await RpcClient(place.bus).request(subjects.REQUEUE, TaskRequest(id=task.id), deadline=soon())
        assert (revived.attempts, revived.reason) == (0, "") or revived.status is not TaskStatus.QUEUED
        assert (await place.until(task.id, TaskStatus.FAILED)).attempts == 1


async def test_an_output_of_any_size_comes_back_whole(opened: OpenPlace) -> None:
    async def speak(order: Order) -> AttemptResult:
        del order
        return AttemptResult(ResultStatus.SUCCESS, Metrics(duration_ms=1), output=BIG)

    async with opened() as place:
        await place.coordinator()
        await place.worker("w1", speak)
        task = await place.submit()
        await place.until(task.id, TaskStatus.COMPLETED)
        reply = await RpcClient(place.bus).request(subjects.RESULT, TaskRequest(id=task.id), deadline=soon())
        assert reply.artifact is not None
        text, following = reply.artifact.content or "", reply.artifact.next_offset
        while following is not None:
            request = ArtifactRequest(id=reply.artifact.id, offset=following)
            more = await RpcClient(place.bus).request(subjects.ARTIFACT, request, deadline=soon())
            text, following = text + (more.content or ""), more.next_offset
        assert text == BIG


async def test_an_old_output_is_deleted_and_what_is_known_of_its_task_stays(opened: OpenPlace) -> None:
    async def speak(order: Order) -> AttemptResult:
        del order
        return AttemptResult(ResultStatus.SUCCESS, Metrics(duration_ms=1), output=BIG)

    async with opened() as place, open_jetstream(place.bus, bucket=ARTIFACTS) as outputs:
        await place.coordinator()
        await place.worker("w1", speak)
        task = await place.submit()
        await place.until(task.id, TaskStatus.COMPLETED)
        retirement, now = Retirement(outputs, 10), clock.now().timestamp()
        assert await retirement.retire(now + 9 * DAY, deadline=soon()) == 0
        # Snapshots have a bucket of their own: none of this is ever among them.
        async with open_jetstream(place.bus) as snapshots:
            assert [info async for info in snapshots.list("", deadline=soon())] == []
        assert await retirement.retire(now + 11 * DAY, deadline=soon()) == 1
        assert [info async for info in outputs.list("", deadline=soon())] == []
        reply = await RpcClient(place.bus).request(subjects.RESULT, TaskRequest(id=task.id), deadline=soon())
        assert reply.task.status is TaskStatus.COMPLETED
        assert reply.artifact is not None
        assert reply.artifact.content is None
        gone = await refused(place, subjects.ARTIFACT, ArtifactRequest(id=reply.artifact.id))
        assert gone is ErrorCode.NOT_FOUND


async def test_a_worker_that_is_done_has_room_for_the_next_task_at_once(opened: OpenPlace) -> None:
    async with opened() as place:
        await place.coordinator()
        await place.worker("w1", at_once=1)
        tasks = [await place.submit(context=f"c{number}") for number in range(20)]
        for task in tasks:
            await place.until(task.id, TaskStatus.COMPLETED)
            assert await actions(place, task.id) == ["submitted", "leased", "started", "completed"]


async def test_what_happens_to_a_task_is_told_step_by_step_and_can_be_read_later(opened: OpenPlace) -> None:
    async with opened() as place:
        await place.coordinator()
        await place.worker("w1")
        task = await place.submit()
        await place.until(task.id, TaskStatus.COMPLETED)
        told: list[tuple[TaskStatus | None, str]] = []
        async with asyncio.timeout(SOON):
            while not told or told[-1][0] is not TaskStatus.COMPLETED:
                page = await RpcClient(place.bus).request(subjects.EVENTS, EventsRequest(id=task.id), deadline=soon())
                told = [(event.status, event.text) for event in page.events]
        assert [status for status, _ in told] == ["queued", "leased", "running", "completed"]
        assert told[1][1].startswith("w1: initialize")


async def test_a_large_output_in_an_s3_has_an_address_that_opens_it(
    bus: Bus, nats_url: str, tmp_path: Path, s3_options: S3Options
) -> None:
    async def speak(order: Order) -> AttemptResult:
        del order
        return AttemptResult(ResultStatus.SUCCESS, Metrics(duration_ms=1), output=BIG)

    kept = {
        "MEMBRIDGE_STORE": "s3", "MINIO_ENDPOINT": s3_options.endpoint, "MINIO_ACCESS_KEY": s3_options.access_key,
        "MINIO_SECRET_KEY": s3_options.secret_key, "MINIO_BUCKET": "not-for-outputs",
        "MINIO_ARTIFACT_BUCKET": s3_options.bucket,
    }  # fmt: skip
    async with place_of(bus, nats_url, f"sqlite:///{tmp_path}/tasks.db", tmp_path, **kept) as place:
        await place.coordinator()
        await place.worker("w1", speak)
        task = await place.submit()
        await place.until(task.id, TaskStatus.COMPLETED)
        reply = await RpcClient(place.bus).request(subjects.RESULT, TaskRequest(id=task.id), deadline=soon())
        assert reply.artifact is not None
        assert reply.artifact.url is not None
        assert await asyncio.to_thread(fetch, reply.artifact.url) == BIG.encode()


async def test_a_key_makes_one_task_of_two_also_at_once_and_later(opened: OpenPlace) -> None:
    async with opened() as place:
        await place.coordinator()
        async with asyncio.TaskGroup() as group:
            made = [group.create_task(place.submit(idempotency_key="k")) for _ in range(8)]
        first = {one.result().id for one in made}
        assert len(first) == 1
        await place.worker("w1")
        await place.until(next(iter(first)), TaskStatus.COMPLETED)
        assert (await place.submit(idempotency_key="k")).id in first


async def test_bad_input_is_refused_and_names_what_is_wrong(opened: OpenPlace) -> None:
    async with opened(MEMBRIDGE_MAX_PROMPT_BYTES="1000") as place:
        await place.coordinator()
        for name in ("01234567-89ab-4cde-8f01-23456789abcd", "no-id-at-all"):
            for operation in (subjects.TASK, subjects.CANCEL, subjects.REQUEUE, subjects.RESULT):
                assert await refused(place, operation, TaskRequest(id=name)) is ErrorCode.NOT_FOUND
            assert await refused(place, subjects.EVENTS, EventsRequest(id=name)) is ErrorCode.NOT_FOUND
            assert await refused(place, subjects.ARTIFACT, ArtifactRequest(id=name)) is ErrorCode.NOT_FOUND
        with pytest.raises(RemoteError) as caught:
            await place.submit("x" * 1001)
        assert caught.value.code is ErrorCode.TOO_LARGE
        reply = await place.bus.request(
            subjects.SUBMIT.subject, b'{"context_id":"c","agent_slug":"a","prompt":"p","priority":10}', deadline=soon()
        )
        assert reply.headers["Nats-Service-Error-Code"] == "400"
        assert b"priority" in reply.body
        with pytest.raises(RemoteError, match="is not a time with its offset from UTC"):
            await place.submit(not_before="2026-01-01T00:00:00")
        task = await place.submit()
        assert await refused(place, subjects.REQUEUE, TaskRequest(id=task.id)) is ErrorCode.CONFLICT
        assert await refused(place, subjects.DRAIN, WorkerRequest(id="nobody")) is ErrorCode.NOT_FOUND


async def test_a_word_under_a_lease_that_is_not_the_live_one_changes_nothing(opened: OpenPlace) -> None:
    running, free = asyncio.Event(), asyncio.Event()

    async def slow(order: Order) -> AttemptResult:
        running.set()
        await free.wait()
        return await echo(order)

    async with opened() as place:
        await place.coordinator()
        worker = await place.worker("w1", slow)
        task = await place.submit("hello")
        await running.wait()
        lease = worker.orders[0].lease
        metrics = Metrics(duration_ms=1)
        stale = LeaseClaim(lease_id=task.id, task_id=task.id, worker_id="w1")
        other = LeaseClaim(lease_id=lease.id, task_id=task.id, worker_id="w2")
        for claim in (stale, other):
            assert await refused(place, subjects.HEARTBEAT, claim) is ErrorCode.LEASE_LOST
            assert await refused(place, subjects.HAND_BACK, claim) is ErrorCode.LEASE_LOST
            report = Report(
                lease_id=claim.lease_id, task_id=task.id, worker_id=claim.worker_id, status=ResultStatus.SUCCESS,
                output="forged", metrics=metrics,
            )  # fmt: skip
            assert await refused(place, subjects.REPORT, report) is ErrorCode.LEASE_LOST
        empty = Report(lease_id=lease.id, task_id=task.id, worker_id="w1", status=ResultStatus.SUCCESS, metrics=metrics)
        assert await refused(place, subjects.REPORT, empty) is ErrorCode.INVALID_REQUEST
        own = LeaseClaim(lease_id=lease.id, task_id=task.id, worker_id="w1")
        renewed = await RpcClient(place.bus).request(subjects.HEARTBEAT, own, deadline=soon(), worker="w1")
        assert renewed.expires_at > lease.expires_at
        free.set()
        await place.until(task.id, TaskStatus.COMPLETED)
        assert await actions(place, task.id) == ["submitted", "leased", "started", "completed"]


async def test_a_task_is_cancelled_waiting_and_running(opened: OpenPlace) -> None:
    running, ended = asyncio.Event(), asyncio.Event()

    async def endless(order: Order) -> AttemptResult:
        del order
        running.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            ended.set()
        raise AssertionError

    async with opened() as place:
        await place.coordinator()
        await place.worker("w1", endless, at_once=1)
        first, second = await place.submit("one"), await place.submit("two")
        await running.wait()
        for task in (second, first):
            found = await RpcClient(place.bus).request(
                subjects.CANCEL, TaskRequest(id=task.id, reason="not needed"), deadline=soon()
            )
            assert (found.status, found.reason) == (TaskStatus.DEAD, "not needed")
        await ended.wait()
        assert await refused(place, subjects.CANCEL, TaskRequest(id=first.id)) is ErrorCode.CONFLICT


async def test_a_context_runs_one_at_a_time_in_order_and_stays_with_its_worker(opened: OpenPlace) -> None:
    at_once: list[int] = [0, 0]

    async def counted(order: Order) -> AttemptResult:
        at_once[0] += 1
        at_once[1] = max(at_once)
        await asyncio.sleep(0)
        at_once[0] -= 1
        outcome = await echo(order)
        return AttemptResult(outcome.status, outcome.metrics, output=outcome.output, session="s-1")

    async with opened() as place:
        await place.coordinator()
        workers = [await place.worker(name, counted) for name in ("w1", "w2")]
        tasks = [await place.submit(str(number)) for number in range(6)]
        for task in tasks:
            await place.until(task.id, TaskStatus.COMPLETED)
        (used,) = [one for one in workers if one.orders]
        assert [order.task.prompt for order in used.orders] == [str(number) for number in range(6)]
        assert [order.resumes for order in used.orders] == [None, *["s-1"] * 5]
        assert at_once[1] == 1


async def test_a_task_waits_for_a_worker_that_can_and_says_so(opened: OpenPlace) -> None:
    async with opened() as place:
        await place.coordinator()
        task = await place.submit(labels=["gpu"])
        assert (await place.task(task.id)).reason == "no eligible worker because there is none"
        await place.worker("w1")
        await place.until_known("w1", WorkerStatus.ONLINE)
        assert (await place.task(task.id)).reason == "no eligible worker because w1 lacks gpu"
        await place.worker("w2", labels=("gpu",))
        assert (await place.until(task.id, TaskStatus.COMPLETED)).worker_id == "w2"


async def test_a_worker_without_the_program_says_so_and_gets_nothing(opened: OpenPlace) -> None:
    async with opened() as place:
        await place.coordinator()
        worker = await place.worker("w1", claude=False)
        task = await place.submit()
        found = await place.until_known("w1", WorkerStatus.ERROR)
        assert found.detail == "there is no claude program"
        assert (await place.task(task.id)).reason == "no eligible worker because w1 has no claude program"
        assert worker.orders == []


async def test_a_task_runs_soon_after_a_worker_appears(opened: OpenPlace) -> None:
    async with opened() as place:
        await place.coordinator()
        task = await place.submit()
        runner = await place.worker("w1")
        began = asyncio.get_running_loop().time()
        await place.until(task.id, TaskStatus.COMPLETED)
        # A tenth of a second, and what a machine that is busy with other tests may add.
        assert asyncio.get_running_loop().time() - began < 0.1 + 0.7
        assert len(runner.orders) == 1


async def test_a_drained_worker_gets_nothing_until_it_is_resumed_also_by_the_next_coordinator(
    opened: OpenPlace,
) -> None:
    async with opened() as place:
        first = await place.coordinator()
        await place.worker("w1")
        ask = RpcClient(place.bus)
        drained = await ask.request(subjects.DRAIN, WorkerRequest(id="w1"), deadline=soon())
        assert drained.status is WorkerStatus.SYNCING
        first.cancel()
        await asyncio.wait({first})
        await place.coordinator()
        task = await place.submit()
        await place.until_known("w1", WorkerStatus.SYNCING)
        assert (await place.task(task.id)).reason == "no eligible worker because w1 is drained"
        await ask.request(subjects.RESUME, WorkerRequest(id="w1"), deadline=soon())
        await place.until(task.id, TaskStatus.COMPLETED)


async def test_a_worker_that_stops_hands_back_and_burns_no_attempt(opened: OpenPlace) -> None:
    running = asyncio.Event()

    async def endless(order: Order) -> AttemptResult:
        del order
        running.set()
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    async with opened() as place:
        await place.coordinator()
        worker = await place.worker("w1", endless)
        task = await place.submit()
        await running.wait()
        await worker.stop()
        found = await place.until(task.id, TaskStatus.QUEUED)
        assert (found.attempts, found.interruptions) == (0, 1)
        await place.worker("w2")
        done = await place.until(task.id, TaskStatus.COMPLETED)
        assert (done.attempts, done.worker_id) == (1, "w2")


async def test_another_coordinator_goes_on_and_nothing_is_run_twice(opened: OpenPlace) -> None:
    running, free = asyncio.Event(), asyncio.Event()

    async def slow(order: Order) -> AttemptResult:
        if order.task.prompt == "held":
            running.set()
            await free.wait()
        return await echo(order)

    async with opened() as place:
        coordinators = [await place.coordinator(), await place.coordinator()]
        worker = await place.worker("w1", slow)
        held = await place.submit("held", context="a")
        await running.wait()
        stats = await RpcClient(place.bus).request(subjects.STATS, Empty(), deadline=soon())
        leader = coordinators[0] if coordinators[0].get_name() else coordinators[1]
        assert stats.active_leases == 1
        leader.cancel()
        await asyncio.wait({leader})
        others = [await place.submit(str(number), context=f"c{number}") for number in range(5)]
        free.set()
        for task in (held, *others):
            await place.until(task.id, TaskStatus.COMPLETED)
        assert sorted(order.task.prompt for order in worker.orders) == sorted(["held", *map(str, range(5))])
        with suppress(asyncio.CancelledError):
            await place.submit("last", context="z")
