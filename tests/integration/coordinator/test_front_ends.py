"""What front ends and people ask of the task runtime, on each database."""

import asyncio

from membridge.bus.asker import ASKED_BY
from membridge.bus.client import Client
from membridge.worker.worker import Outcome
from schemas import subjects
from schemas.runtime import (
    AuditRequest,
    Metrics,
    Order,
    ResultStatus,
    Task,
    TaskRequest,
    TaskSpec,
    TasksRequest,
    TaskStatus,
    WorkerRequest,
    WorkerStatus,
)
from schemas.wire import encode
from tests.fixtures.tasks import OpenPlace, Place, soon


async def sessions(order: Order) -> Outcome:
    """End at once, in a session named after the context."""
    session = f"session of {order.task.context_id[:8]}"
    return Outcome(ResultStatus.SUCCESS, Metrics(duration_ms=1), output=order.task.prompt, session=session)


async def actors(place: Place, entity_id: str) -> dict[str, str]:
    audit = await Client(place.bus).request(subjects.AUDIT, AuditRequest(entity_id=entity_id), deadline=soon())
    return {one.action: one.actor for one in reversed(audit.records)}


async def test_contexts_and_agents_are_any_text_and_a_task_without_context_has_its_own(opened: OpenPlace) -> None:
    odd = "Größe/eins * > .. 1" + "ü" * 180
    async with opened() as place:
        ask = Client(place.bus)
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
        alice, bob = (Client(place.bus, on_behalf_of=name) for name in ("alice@laptop", "bob@desk"))
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
        long = {ASKED_BY: "a\x07" + "b" * 4_000}
        await place.bus.request(subjects.REQUEUE.at(), encode(TaskRequest(id=task.id)), headers=long, deadline=soon())
        assert (await actors(place, task.id))["requeued"] == "a" + "b" * 126
