"""The workers of one tenure: the last presence of each, when it came, and how many tasks the worker holds.

How many tasks a worker holds is counted from its leases, never taken from its presence. Plain data, no I/O.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from msgspec.structs import replace

from membridge.errors import NotFoundError, RefusedError
from schemas.workers import Capabilities, Worker, WorkerStatus
from services.coordinator.routing import Candidate
from services.coordinator.store.statements import INSERT_WORKER, UPDATE_WORKER
from services.database.statements import Write


@dataclass(slots=True)
class _Known:
    worker: Worker
    heard: float
    held: int = 0
    drained: bool = False
    #: It belongs to no node: it leases tasks itself instead of receiving orders.
    pulls: bool = False


class Workers:
    """The workers by id. Times are seconds of the loop's clock."""

    def __init__(self, recorded: Mapping[str, tuple[str, bool]] | None = None) -> None:
        self._known: dict[str, _Known] = {}
        #: When each worker was first seen, as the database has it.
        self._registered = {name: at for name, (at, _) in (recorded or {}).items()}
        self._drained = {name for name, (_, drained) in (recorded or {}).items() if drained}

    def hear(self, worker: Worker, now: float) -> bool:
        """Take in the presence of a worker; return whether it may be able to run more now."""
        known = self._known.get(worker.id)
        if known is None:
            self._known[worker.id] = _Known(worker, now, drained=worker.id in self._drained)
            return True
        more = (worker.status, worker.capabilities) != (known.worker.status, known.worker.capabilities)
        known.worker, known.heard, known.pulls = worker, now, False
        return more

    def pull(self, worker_id: str, labels: Sequence[str], now: float, at: str) -> Worker:
        """Take in a worker that leases tasks itself; return it."""
        known = self._known.get(worker_id)
        worker = Worker(
            id=worker_id, node_id=worker_id, status=WorkerStatus.ONLINE, capabilities=Capabilities(labels=[*labels]),
            last_heartbeat=at, detail="leases its tasks itself",
        )  # fmt: skip
        if known is None:
            known = self._known[worker_id] = _Known(worker, now, drained=worker_id in self._drained)
        known.worker, known.heard, known.pulls = worker, now, True
        return worker

    def speak(self, worker_id: str, now: float, at: str) -> None:
        """Note a request under a lease of a worker that leases tasks itself; nodes publish presence instead."""
        known = self._known.get(worker_id)
        if known is not None and known.pulls:
            known.worker, known.heard = replace(known.worker, status=WorkerStatus.ONLINE, last_heartbeat=at), now

    def takes_orders(self, worker_id: str) -> bool:
        """Whether this is a node's worker and online: it receives orders."""
        known = self._known.get(worker_id)
        heard = known is not None and not known.pulls and known.heard > 0.0
        return heard and known is not None and known.worker.status is not WorkerStatus.OFFLINE

    def is_drained(self, worker_id: str) -> bool:
        """Whether an operator has drained a worker."""
        return worker_id in self._drained

    def check_removable(self, worker_id: str) -> None:
        """Raise NotFoundError, or RefusedError for a worker that is online or holds tasks."""
        worker = self.get(worker_id)
        if worker.active_leases:
            raise RefusedError(
                f"worker {worker_id} holds {worker.active_leases} task{'s' * (worker.active_leases > 1)}",
                remedy=f"drain it and wait: `membridge worker drain {worker_id}`, or cancel them",
            )
        known = self._known.get(worker_id)
        if worker.status is not WorkerStatus.OFFLINE and not (known is not None and known.pulls):
            raise RefusedError(
                f"worker {worker_id} is {worker.status.value}: it would be back within seconds",
                remedy="stop its daemon first, or cut the machine off: `membridge nodes revoke`",
            )

    def forget(self, worker_id: str) -> None:
        """Forget a worker."""
        for known in (self._known, self._registered):
            known.pop(worker_id, None)
        self._drained.discard(worker_id)

    def lose(self, worker_id: str, status: WorkerStatus, detail: str) -> None:
        """Give a worker no more tasks until its next presence."""
        known = self._known.get(worker_id)
        if known is not None:
            known.worker = replace(known.worker, status=status, detail=detail)

    def silent_since(self, instant: float) -> list[str]:
        """Return the workers that count as online and sent no presence since."""
        return [
            known.worker.id
            for known in self._known.values()
            if known.heard < instant and known.worker.status is not WorkerStatus.OFFLINE
        ]

    def drain(self, worker_id: str, *, drained: bool) -> None:
        """Give a worker no new tasks, or give them again."""
        (self._drained.add if drained else self._drained.discard)(worker_id)
        if (known := self._known.get(worker_id)) is not None:
            known.drained = drained

    def register(self, worker: Worker, at: str) -> list[Write]:
        """Return the row of a worker that is seen for the first time; nothing for a known one."""
        if worker.id in self._registered:
            return []
        self._registered[worker.id] = at
        return [Write(INSERT_WORKER, {"id": worker.id, "registered_at": at, "drained": 0})]

    def writes(self, worker: Worker, *, drained: bool) -> list[Write]:
        """Return the update of a worker that is drained, or not drained any more."""
        return [Write(UPDATE_WORKER, {"b_id": worker.id, "b_drained": int(drained)})]

    def give(self, worker_id: str) -> None:
        """Count one more task of a worker."""
        known = self._known.get(worker_id)
        if known is None:
            # A lease of an earlier tenure, and no presence of its worker yet.
            absent = Worker(id=worker_id, node_id=worker_id)
            known = self._known[worker_id] = _Known(absent, 0.0, drained=worker_id in self._drained)
        known.held += 1

    def take(self, worker_id: str) -> None:
        """Count one task of a worker less."""
        known = self._known.get(worker_id)
        if known is not None:
            known.held = max(0, known.held - 1)

    def candidates(self) -> list[Candidate]:
        """Return the workers as routing sees them."""
        return [
            Candidate(
                id=known.worker.id,
                declines=_declines(known),
                claude_cli=known.worker.capabilities.claude_cli,
                labels=frozenset(known.worker.capabilities.labels),
                active=known.held,
                max_concurrency=known.worker.capabilities.max_concurrency,
                heard=known.heard,
            )
            for known in self._known.values()
        ]

    def all(self) -> list[Worker]:
        """Return all workers by id, also those of earlier tenures; a drained one has that as its detail."""
        return [self.get(name) for name in sorted({*self._known, *self._registered})]

    def get(self, worker_id: str) -> Worker:
        """Return a worker. Raises NotFoundError."""
        known, registered = self._known.get(worker_id), self._registered.get(worker_id)
        if known is None and registered is None:
            raise NotFoundError(f"there is no worker {worker_id}")
        if known is None:
            absent = Worker(id=worker_id, node_id=worker_id, status=WorkerStatus.OFFLINE, detail="not heard of")
            known = _Known(absent, 0.0, drained=worker_id in self._drained)
        return _shown(known, registered or "")


def _declines(known: _Known) -> str:
    """Return in words why a worker gets no task now; an empty text when it may."""
    worker, detail = known.worker, known.worker.detail
    if known.pulls:
        return "leases its tasks itself"
    if known.drained and worker.status is not WorkerStatus.OFFLINE:
        return "is drained"
    if worker.status is WorkerStatus.ERROR and not worker.capabilities.claude_cli:
        return "has no claude program"
    bare, because = _REASONS[worker.status]
    return f"{because}: {detail}" if detail and because else bare


#: Why a worker of each status takes no task, without and with a detail.
_REASONS = {
    WorkerStatus.ONLINE: ("", ""),
    WorkerStatus.OFFLINE: ("is offline", ""),
    WorkerStatus.SYNCING: ("is starting or stopping", "takes no more tasks"),
    WorkerStatus.ERROR: ("has an error", "has an error"),
    WorkerStatus.UNKNOWN: ("has not been heard of yet", "did not take its last task"),
}


def _shown(known: _Known, registered_at: str) -> Worker:
    worker, drained = known.worker, known.drained
    if drained and worker.status is WorkerStatus.ONLINE:
        worker = replace(worker, status=WorkerStatus.SYNCING, detail="drained")
    return replace(worker, active_leases=known.held, registered_at=registered_at)
