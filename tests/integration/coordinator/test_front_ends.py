"""What front ends and people ask of the task runtime, on each database."""

import asyncio

import pytest

from membridge.bus.caller import CALLER
from membridge.bus.rpc import RpcClient
from membridge.errors import MembridgeError
from membridge.worker.worker import AttemptResult
from schemas import subjects
from schemas.audit import AuditRequest
from schemas.errors import ErrorCode
from schemas.leases import LeasesRequest, LeaseStatus, Order
from schemas.results import Metrics, ResultStatus
from schemas.runs import RunsRequest, RunStatus
from schemas.tasks import Task, TaskRequest, TaskSpec, TasksRequest, TaskStatus
from schemas.wire import encode
from schemas.workers import WorkerRequest, WorkerStatus
from tests.fixtures.tasks import OpenPlace, Place, soon


async def sessions(order: Order) -> AttemptResult:
    """End at once, in a session named after the context."""
    session = f"session of {order.task.context_id[:8]}"
    return AttemptResult(ResultStatus.SUCCESS, Metrics(duration_ms=1), output=order.task.prompt, session=session)


async def actors(place: Place, entity_id: str) -> dict[str, str]:
    audit = await RpcClient(place.bus).request(subjects.AUDIT, AuditRequest(entity_id=entity_id), deadline=soon())
    return {one.action: one.actor for one in reversed(audit.records)}


async def test_contexts_and_agents_are_any_text_and_a_task_without_context_has_its_own(opened: OpenPlace) -> None:
    odd = "Größe/eins * > .. 1" + "ü" * 180
    async with opened() as place:
        ask = RpcClient(place.bus)
        first = await place.coordinator()
        worker = await place.worker("w1", sessions)

        async def run(context: str | None, agent: str = "a") -> Task:
            spec = TaskSpec(context_id=context, agent_slug=agent, prompt="p")
            submitted = await ask.request(subjects.SUBMIT, spec, deadline=soon())
            return await place.until(submitted.id, TaskStatus.COMPLETED)

        alone = [await run(None), await run(None)]
        assert [task.context_id for task in alone] == [task.id for task in alone]
        named = await run(odd[:200], "The Reviewer: 審査 \N{GRINNING FACE}")
        assert (named.context_id, named.agent_slug) == (odd[:200], "The Reviewer: 審査 \N{GRINNING FACE}")
        listed = await ask.request(subjects.TASKS, TasksRequest(context_id=odd[:200]), deadline=soon())
        assert [task.id for task in listed.tasks] == [named.id]
        # Its session is known to the next coordinator too, which reads it from KV.
        first.cancel()
        await asyncio.wait({first})
        await place.coordinator()
        await run(odd[:200])
        resumed = {order.task.context_id: order.resumes for order in worker.orders}
        assert resumed == {alone[0].id: None, alone[1].id: None, odd[:200]: f"session of {odd[:8]}"}


async def test_the_audit_names_who_asked(opened: OpenPlace) -> None:
    async with opened() as place:
        await place.coordinator()
        await place.worker("w1")
        await place.until_known("w1", WorkerStatus.ONLINE)
        alice, bob = (RpcClient(place.bus, on_behalf_of=name) for name in ("alice@laptop", "bob@desk"))
        spec = TaskSpec(agent_slug="a", prompt="p", labels=["nobody-has-it"])
        task = await alice.request(subjects.SUBMIT, spec, deadline=soon())
        await bob.request(subjects.CANCEL, TaskRequest(id=task.id), deadline=soon())
        await alice.request(subjects.REQUEUE, TaskRequest(id=task.id), deadline=soon())
        await bob.request(subjects.DRAIN, WorkerRequest(id="w1"), deadline=soon())
        assert await actors(place, task.id) == {
            "submitted": "alice@laptop", "cancelled": "bob@desk", "requeued": "alice@laptop",
        }  # fmt: skip
        assert (await actors(place, "w1"))["drained"] == "bob@desk"
        # The stock CLI names nobody, and a name is never more than a name.
        await place.bus.request(subjects.CANCEL.at(), encode(TaskRequest(id=task.id)), deadline=soon())
        assert (await actors(place, task.id))["cancelled"] == "an unnamed client"
        long = {CALLER: "a\x07" + "b" * 4_000}
        await place.bus.request(subjects.REQUEUE.at(), encode(TaskRequest(id=task.id)), headers=long, deadline=soon())
        assert (await actors(place, task.id))["requeued"] == "a" + "b" * 126


async def test_runs_and_leases_are_listed_by_status_task_worker_and_page(opened: OpenPlace) -> None:
    free = asyncio.Event()

    async def attempt(order: Order) -> AttemptResult:
        if order.task.prompt == "slow":
            await free.wait()
        if order.task.prompt == "bad":
            return AttemptResult(ResultStatus.ERROR, Metrics(duration_ms=7), error_message="it broke")
        return AttemptResult(ResultStatus.SUCCESS, Metrics(duration_ms=5, tokens_used=11), output="done")

    async with opened() as place:
        ask = RpcClient(place.bus)
        await place.coordinator()
        await place.worker("w1", attempt)
        good = await place.until((await place.submit("good", "a")).id, TaskStatus.COMPLETED)
        bad = await place.until((await place.submit("bad", "b", max_attempts=1)).id, TaskStatus.DEAD)
        slow = await place.until((await place.submit("slow", "c")).id, TaskStatus.RUNNING)

        async def runs(**which: object) -> list[tuple[str, RunStatus]]:
            reply = await ask.request(subjects.RUNS, RunsRequest(**which), deadline=soon())  # type: ignore[arg-type]
            return [(run.task_id, run.status) for run in reply.runs]

        async def leases(**which: object) -> list[tuple[str, LeaseStatus]]:
            request = LeasesRequest(**which)  # type: ignore[arg-type]
            reply = await ask.request(subjects.LEASES, request, deadline=soon())
            return [(lease.task_id, lease.status) for lease in reply.leases]

        newest_first = [
            (slow.id, RunStatus.RUNNING), (bad.id, RunStatus.FAILED), (good.id, RunStatus.COMPLETED),
        ]  # fmt: skip
        assert await runs() == newest_first
        for one in newest_first:
            assert await runs(status=one[1]) == [one]
            assert await runs(task_id=one[0], worker_id="w1") == [one]
        assert await runs(worker_id="w2") == await runs(status=RunStatus.EXPIRED) == []
        first = await ask.request(subjects.RUNS, RunsRequest(limit=2), deadline=soon())
        rest = await ask.request(subjects.RUNS, RunsRequest(limit=2, before=first.runs[-1].id), deadline=soon())
        assert ([run.task_id for run in first.runs], first.more) == ([slow.id, bad.id], True)
        assert ([run.task_id for run in rest.runs], rest.more) == ([good.id], False)
        (done,) = rest.runs
        assert (done.duration_ms, done.tokens_used, done.error_message) == (5, 11, None)
        assert done.ended_at is not None
        assert done.artifact_id is not None
        assert (first.runs[1].error_message, first.runs[0].ended_at) == ("it broke", None)
        # Leases: the active ones unless asked for others; an empty body asks for them too.
        assert await leases() == await leases(status=LeaseStatus.ACTIVE) == [(slow.id, LeaseStatus.ACTIVE)]
        assert await leases(status=LeaseStatus.FAILED) == [(bad.id, LeaseStatus.FAILED)]
        assert len(await leases(status=None)) == 3
        # A worker comes with what it holds, and only that.
        worker = await ask.request(subjects.WORKER, WorkerRequest(id="w1"), deadline=soon())
        assert [lease.task_id for lease in worker.leases] == [slow.id]
        assert worker.active_leases == 1
        await ask.request(subjects.CANCEL, TaskRequest(id=slow.id), deadline=soon())
        assert await runs(task_id=slow.id) == [(slow.id, RunStatus.RETURNED)]
        assert await runs(status=RunStatus.RETURNED) == [(slow.id, RunStatus.RETURNED)]


async def test_a_prompt_of_a_mebibyte_works_whatever_it_is_made_of_and_a_larger_one_is_refused(
    opened: OpenPlace,
) -> None:
    async with opened() as place:
        await place.coordinator()
        worker = await place.worker("w1")
        for letter in ("\x01", "\N{GRINNING FACE}"):
            prompt = letter * ((1 << 20) // len(letter.encode()))
            task = await place.submit(prompt, context=repr(letter))
            assert task.prompt == prompt
            await place.until(task.id, TaskStatus.COMPLETED)
            assert worker.orders[-1].task.prompt == prompt
            assert (await place.task(task.id)).prompt == prompt
        for prompt in ("x" * ((1 << 20) + 1), "\x01" * (2 << 20)):
            with pytest.raises(MembridgeError, match="the prompt") as caught:
                await place.submit(prompt)
            assert (caught.value.code, caught.value.field) == (ErrorCode.TOO_LARGE, "prompt")
