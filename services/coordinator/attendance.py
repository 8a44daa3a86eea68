"""Who is there: what nodes say of their workers, believed once a worker answered on the way of its work.

A worker that is new, or that started anew, is asked; workers are asked at the same time, up to a bound, and of what a
node says meanwhile its last word counts.
"""

import asyncio

from membridge.aio.deadline import Deadline
from membridge.bus.connection import Bus
from membridge.bus.rpc import Client
from membridge.errors import MembridgeError
from membridge.system.logging import get_logger
from schemas import subjects
from schemas.node import Empty, NodePresence
from schemas.workers import Worker, WorkerPresence, WorkerStatus
from services.coordinator.runtime import Runtime

log = get_logger("membridge.coordinator")

#: Seconds that a worker may take to answer, and workers that are asked at once.
PROBE, PROBES = 3.0, 32


class Attendance:
    """The workers' words of one term; who is asked is asked in `group`."""

    def __init__(self, bus: Bus, runtime: Runtime, group: asyncio.TaskGroup) -> None:
        self._client, self._runtime, self._group = Client(bus), runtime, group
        self._free = asyncio.Semaphore(PROBES)
        #: The life of each worker that answered.
        self._proven: dict[str, str] = {}
        #: Nodes whose worker is being asked, and the last word of each since.
        self._asked: dict[str, NodePresence | None] = {}

    def take(self, said: NodePresence) -> None:
        """Take a node's word."""
        if said.node in self._asked:
            self._asked[said.node] = said
        elif said.worker is None:
            self._proven.pop(said.node, None)
            self._runtime.silence(said.node)
        elif said.worker.status is not WorkerStatus.ONLINE or self._proven.get(said.node) == _life(said):
            self._runtime.hear(to_worker(said, said.worker))
        else:
            self._asked[said.node] = None
            self._group.create_task(self._prove(said), name=f"asks {said.node}")

    async def _prove(self, said: NodePresence) -> None:
        """Ask a worker; then take what its node said last."""
        last: NodePresence | None = said
        try:
            async with self._free:
                given = self._runtime.given_to(said.node)
                answer = await self._client.request(
                    subjects.WORKER_STATUS, Empty(), deadline=Deadline.after(PROBE), worker=said.node
                )
            self._proven[said.node] = _life(said)
            self._runtime.believe(said.node, answer.running, given)
        except MembridgeError as error:
            log.info("worker does not answer", node=said.node, reason=error.message)
            # Its next word is a new chance; only one that came meanwhile is one now.
            last = None
        finally:
            last = self._asked.pop(said.node) or last
        if last is not None:
            self.take(last)


def _life(said: NodePresence) -> str:
    return f"{said.instance} {said.started_at}"


def to_worker(presence: NodePresence, said: WorkerPresence) -> Worker:
    """Return the worker that a node says it is."""
    rows = sum(project.rows.get("observations", 0) for project in presence.projects)
    return Worker(
        id=presence.node,
        node_id=presence.node,
        status=said.status,
        capabilities=said.capabilities,
        last_heartbeat=presence.updated_at,
        ip_addrs=presence.addresses,
        obs_count=rows,
        db_sha=presence.projects[0].mirror_sha256 if presence.projects else "",
        install_method=presence.install_method.value if presence.install_method is not None else "",
        agent_version=presence.version,
        os_info=f"{presence.os} {presence.arch}",
        detail=said.detail,
    )
