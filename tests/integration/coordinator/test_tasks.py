"""A task's way through coordinator and worker, over NATS and the database."""

from membridge.bus.client import Client
from schemas import subjects
from schemas.node import Empty
from schemas.runtime import AuditRequest, TaskRequest, TaskStatus
from tests.fixtures.tasks import OpenPlace, soon


async def test_a_task_is_run_and_its_result_kept(opened: OpenPlace) -> None:
    async with opened() as place:
        await place.coordinator()
        await place.worker("w1")
        task = await place.submit("hello")
        done = await place.until(task.id, TaskStatus.COMPLETED)
        assert (done.attempts, done.worker_id) == (1, "w1")
        reply = await Client(place.bus).request(subjects.RESULT, TaskRequest(id=task.id), deadline=soon())
        assert reply.result is not None
        assert reply.artifact is not None
        assert (reply.result.output, reply.artifact.content) == ("hello", "hello")
        audit = await Client(place.bus).request(subjects.AUDIT, AuditRequest(entity_id=task.id), deadline=soon())
        assert [one.action for one in reversed(audit.records)] == ["submitted", "leased", "started", "completed"]
        stats = await Client(place.bus).request(subjects.STATS, Empty(), deadline=soon())
        assert (stats.tasks, stats.active_leases) == ({"completed": 1}, 0)
