"""A worker that is no node lives on lease, heartbeat and report; workers are removed. On each database."""

import asyncio
import random
from pathlib import Path

import pytest
from msgspec.structs import replace

from membridge.aio.deadline import Deadline
from membridge.bus.rpc import RpcClient
from membridge.errors import LeaseLostError, MembridgeError, RemoteError
from schemas import subjects
from schemas.audit import AuditRequest
from schemas.errors import ErrorCode
from schemas.leases import LeaseClaim, Leased, LeaseRequest, Order, Report
from schemas.node import Empty
from schemas.results import Metrics, ResultStatus
from schemas.runs import Run, RunsRequest, RunStatus
from schemas.tasks import Policy, TaskRequest, TaskSpec, TaskStatus
from schemas.workers import WorkerRequest, WorkerStatus
from services.coordinator.engine.reports import REASON
from services.coordinator.store.migrations import MIGRATIONS
from services.database.engine import open_engine, parse_url
from tests.fixtures.tasks import OpenPlace, Place, soon
from tests.integration.coordinator.histories import AcceptingPort, History

NAME = "http-1"


def claim_of(order: Order, worker_id: str = NAME) -> LeaseClaim:
    return LeaseClaim(lease_id=order.lease.id, task_id=order.task.id, worker_id=worker_id)


def success(order: Order, output: str, worker_id: str = NAME) -> Report:
    return Report(
        lease_id=order.lease.id, task_id=order.task.id, worker_id=worker_id, status=ResultStatus.SUCCESS,
        output=output, metrics=Metrics(duration_ms=3),
    )  # fmt: skip


async def lease(place: Place, **request: object) -> Leased:
    asked = LeaseRequest(**{"worker_id": NAME, **request})  # type: ignore[arg-type]
    return await RpcClient(place.bus).request(subjects.LEASE, asked, deadline=soon(), worker=asked.worker_id)


async def refused(place: Place, **request: object) -> tuple[ErrorCode, str]:
    with pytest.raises(RemoteError) as caught:
        await lease(place, **request)
    return caught.value.code, caught.value.message


async def runs(place: Place, task_id: str) -> list[Run]:
    return (await RpcClient(place.bus).request(subjects.RUNS, RunsRequest(task_id=task_id), deadline=soon())).runs


async def test_a_worker_that_is_no_node_leases_beats_and_completes(opened: OpenPlace) -> None:
    async with opened() as place:
        ask = RpcClient(place.bus)
        await place.coordinator()
        assert (await lease(place)).reason == "no task waits that the worker may have"
        first, second = await place.submit("one"), await place.submit("two")
        urgent = await place.submit("urgent", context="other", priority=9, labels=["gpu"])
        # What the first of a context waits for its second waits for too, by its own name as well.
        code, why = await refused(place, task_id=second.id)
        assert (code, first.id in why) == (ErrorCode.CONFLICT, True)
        order = (await lease(place, nonce="n1")).order
        assert order is not None
        assert (order.task.id, order.task.prompt, order.lease.worker_id) == (first.id, "one", NAME)
        assert (await place.task(first.id)).status is TaskStatus.RUNNING
        # The answer may have been lost: the same question has the same answer, another one has not.
        again = (await lease(place, nonce="n1")).order
        assert again is not None
        assert (again.task.id, again.lease) == (order.task.id, order.lease)
        assert (await lease(place, nonce="n2")).order is None
        assert (await refused(place, task_id=first.id))[0] is ErrorCode.CONFLICT
        assert (await refused(place, task_id="nothing"))[0] is ErrorCode.NOT_FOUND
        gpu = (await lease(place, labels=["gpu", "eu"])).order
        assert gpu is not None
        assert gpu.task.id == urgent.id

        renewed = await ask.request(subjects.HEARTBEAT, claim_of(order), deadline=soon(), worker=NAME)
        assert renewed.expires_at > order.lease.expires_at
        worker = await ask.request(subjects.WORKER, WorkerRequest(id=NAME), deadline=soon())
        assert (worker.status, worker.active_leases, len(worker.leases)) == (WorkerStatus.ONLINE, 2, 2)
        # Nobody else speaks under its lease, whatever subject it says it on.
        for speaker, worker_id in (("other", "other"), ("other", NAME), (NAME, "other")):
            with pytest.raises(RemoteError):
                await ask.request(subjects.REPORT, success(order, "forged", worker_id), deadline=soon(), worker=speaker)
        assert (await ask.request(subjects.REPORT, success(order, "done"), deadline=soon(), worker=NAME)).accepted
        result = await ask.request(subjects.RESULT, TaskRequest(id=first.id), deadline=soon())
        assert (result.task.status, result.result and result.result.output) == (TaskStatus.COMPLETED, "done")
        assert [run.status for run in await runs(place, first.id)] == [RunStatus.COMPLETED]
        assert (await refused(place, nonce="n1"))[0] is ErrorCode.LEASE_LOST
        assert (await refused(place, task_id=first.id))[0] is ErrorCode.CONFLICT
        # The next of the context is there now, and a failure is tried again as any other.
        order = (await lease(place, task_id=second.id)).order
        assert order is not None
        failed = Report(
            lease_id=order.lease.id, task_id=order.task.id, worker_id=NAME, status=ResultStatus.ERROR,
            error_message="no", metrics=Metrics(duration_ms=1),
        )  # fmt: skip
        await ask.request(subjects.REPORT, failed, deadline=soon(), worker=NAME)
        assert (await place.task(second.id)).status is TaskStatus.FAILED
        audit = await ask.request(subjects.AUDIT, AuditRequest(entity_id=first.id), deadline=soon())
        assert [(one.action, one.actor) for one in reversed(audit.records)][1:] == [
            ("leased", NAME), ("started", NAME), ("completed", NAME),
        ]  # fmt: skip
        # A node's worker is given its tasks; it takes none.
        await place.worker("w1")
        await place.until_known("w1", WorkerStatus.ONLINE)
        code, why = await refused(place, worker_id="w1")
        assert (code, why) == (
            ErrorCode.CONFLICT, "worker w1 may not ask for tasks: a node of that name runs and is given them"
        )  # fmt: skip
        await ask.request(subjects.DRAIN, WorkerRequest(id=NAME), deadline=soon())
        assert (await lease(place)).reason == "the worker is drained"


async def test_a_worker_that_is_gone_is_removed_and_a_new_one_of_its_name_is_new(opened: OpenPlace) -> None:
    async with opened() as place:
        ask = RpcClient(place.bus)

        async def remove(name: str) -> ErrorCode | None:
            try:
                await ask.request(subjects.REMOVE_WORKER, WorkerRequest(id=name), deadline=soon())
            except MembridgeError as error:
                return error.code
            return None

        async def names() -> list[str]:
            return [one.id for one in (await ask.request(subjects.WORKERS, Empty(), deadline=soon())).workers]

        first = await place.coordinator()
        gone, stays = await place.worker("gone"), await place.worker("stays")
        for name in ("gone", "stays"):
            await place.until_known(name, WorkerStatus.ONLINE)
        await ask.request(subjects.DRAIN, WorkerRequest(id="gone"), deadline=soon())
        await place.submit()
        order = (await lease(place, task_id=(await place.submit(labels=["x"])).id, labels=["x"])).order
        assert order is not None
        assert [await remove(name) for name in ("gone", NAME, "nobody")] == [
            ErrorCode.CONFLICT, ErrorCode.CONFLICT, ErrorCode.NOT_FOUND,
        ]  # fmt: skip
        await ask.request(subjects.REPORT, success(order, "done"), deadline=soon(), worker=NAME)
        await gone.stop()
        await place.until_known("gone", WorkerStatus.OFFLINE)
        # The next coordinator knows them all, heard of or not.
        first.cancel()
        await asyncio.wait({first})
        await place.coordinator()
        await place.until_known("stays", WorkerStatus.ONLINE)
        await place.until_known("gone", WorkerStatus.OFFLINE)
        assert [await remove(name) for name in ("gone", NAME, "gone")] == [None, None, ErrorCode.NOT_FOUND]
        assert await names() == ["stays"]
        audit = await ask.request(subjects.AUDIT, AuditRequest(entity_id="gone"), deadline=soon())
        assert audit.records[0].action == "removed"
        await place.worker("gone")
        await place.until_known("gone", WorkerStatus.ONLINE)
        assert await names() == ["gone", "stays"]
        assert len(stays.orders) == 1


async def test_a_task_with_the_longest_message_of_an_error_is_shown_also_while_it_waits(opened: OpenPlace) -> None:
    async with opened() as place:
        await place.coordinator()
        task = await place.submit(max_attempts=2)
        order = (await lease(place)).order
        assert order is not None
        message = "é" * 65_536
        report = replace(success(order, ""), status=ResultStatus.ERROR, output=None, error_message=message)
        await RpcClient(place.bus).request(subjects.REPORT, report, deadline=soon(), worker=NAME)
        waiting = await place.until(task.id, TaskStatus.QUEUED)
        assert waiting.reason.startswith(f"{message[:REASON]}; ")
        said = await RpcClient(place.bus).request(subjects.RESULT, TaskRequest(id=task.id), deadline=soon())
        assert said.result is not None
        assert said.result.error_message == message


async def test_a_worker_that_is_no_node_and_falls_silent_loses_its_task(database_url: str, tmp_path: Path) -> None:
    async with (
        open_engine(parse_url(database_url, tmp_path / "x"), MIGRATIONS, deadline=Deadline.after(30.0)) as engine,
        asyncio.TaskGroup() as group,
    ):
        history = History(engine, AcceptingPort(), group, random.Random(1))
        runtime = await history.begin()
        spec = TaskSpec(agent_slug="a", prompt="p", labels=["http"], policy=Policy(timeout_sec=1))
        task = await runtime.submit(spec, actor="test")
        request = LeaseRequest(worker_id=NAME, labels=["http"])
        orders: list[Order] = []
        async with asyncio.timeout(20.0):
            while len(orders) < 2:
                found = (await runtime.lease(request)).order
                orders += [found] if found is not None else []
                await asyncio.sleep(0)
        assert [order.task.attempts for order in orders] == [1, 2]
        with pytest.raises(LeaseLostError, match="has ended: it expired, or the task was cancelled"):
            await runtime.report(success(orders[0], "late"))
        with pytest.raises(LeaseLostError):
            await runtime.heartbeat(claim_of(orders[0]))
        assert (await runtime.report(success(orders[1], "in time"))).accepted
        result = await history.queries.result(task.id)
        assert result is not None
        assert result.output == "in time"
        statuses = [run.status for run in await history.queries.runs(RunsRequest(task_id=task.id))]
        assert statuses == [RunStatus.COMPLETED, RunStatus.EXPIRED]
        await history.kill()
