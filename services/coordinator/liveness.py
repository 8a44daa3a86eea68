"""Which workers are online: the presence that nodes publish, believed once the worker answered a request.

A worker that is new or that started again is probed: orders take the same way as that request. Up to `PROBES` workers
are probed at a time. Of the presence that a node publishes meanwhile the last message counts.
"""

import asyncio

from membridge.aio.deadline import Deadline
from membridge.bus.connection import Bus
from membridge.bus.rpc import RpcClient
from membridge.errors import MembridgeError
from membridge.system.logging import get_logger
from schemas import subjects
from schemas.node import Empty, NodePresence
from schemas.workers import Worker, WorkerPresence, WorkerStatus
from services.coordinator.engine.events import Believed, Heard, Silent
from services.coordinator.engine.workers import given_to
from services.coordinator.runtime import Runtime

log = get_logger("membridge.coordinator")

#: Seconds that a worker may take to answer a probe, and probes at a time.
PROBE, PROBES = 3.0, 32


class Liveness:
    """The presence of workers during one tenure; probes run in `group`."""

    def __init__(self, bus: Bus, runtime: Runtime, group: asyncio.TaskGroup) -> None:
        self._client, self._runtime, self._group = RpcClient(bus), runtime, group
        self._free = asyncio.Semaphore(PROBES)
        #: The process of each worker that answered.
        self._answered: dict[str, str] = {}
        #: Nodes whose worker is being probed, and the last presence of each since.
        self._asked: dict[str, NodePresence | None] = {}

    def take(self, presence: NodePresence) -> None:
        """Take in the presence of a node."""
        if presence.node in self._asked:
            self._asked[presence.node] = presence
        elif presence.worker is None:
            self._answered.pop(presence.node, None)
            self._runtime.post(Silent((presence.node,)))
        elif presence.worker.status is not WorkerStatus.ONLINE or self._answered.get(presence.node) == _life(presence):
            self._runtime.post(Heard(to_worker(presence, presence.worker)))
        else:
            self._asked[presence.node] = None
            self._group.create_task(self._probe(presence), name=f"asks {presence.node}")

    async def _probe(self, presence: NodePresence) -> None:
        """Probe a worker; then take in the last presence of its node."""
        last: NodePresence | None = presence
        try:
            async with self._free:
                given = given_to(await self._runtime.settled(), presence.node)
                answer = await self._client.request(
                    subjects.WORKER_STATUS, Empty(), deadline=Deadline.after(PROBE), worker=presence.node
                )
            self._answered[presence.node] = _life(presence)
            running = frozenset(answer.running)
            self._runtime.post(Believed(worker_id=presence.node, running=running, given=given))
        except MembridgeError as error:
            log.info("worker does not answer", node=presence.node, reason=error.message)
            # Its next presence is the next chance; one that came during the probe counts now.
            last = None
        finally:
            last = self._asked.pop(presence.node) or last
        if last is not None:
            self.take(last)


def _life(presence: NodePresence) -> str:
    return f"{presence.instance} {presence.started_at}"


def to_worker(presence: NodePresence, worker: WorkerPresence) -> Worker:
    """Return the worker that a node's presence describes."""
    rows = sum(project.rows.get("observations", 0) for project in presence.projects)
    return Worker(
        id=presence.node,
        node_id=presence.node,
        status=worker.status,
        capabilities=worker.capabilities,
        last_heartbeat=presence.updated_at,
        ip_addrs=presence.addresses,
        obs_count=rows,
        db_sha=presence.projects[0].mirror_sha256 if presence.projects else "",
        install_method=presence.install_method.value if presence.install_method is not None else "",
        agent_version=presence.version,
        os_info=f"{presence.os} {presence.arch}",
        detail=worker.detail,
    )
