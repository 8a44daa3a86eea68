"""The workers of one term: what each says of itself, whether it was heard of, and how many tasks it holds.

How many a worker holds is what this coordinator gave it, never what it says. Plain data; whoever hears of a worker
tells it here.
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
    #: It is no node's: it asks for its tasks instead of being given them.
    pulls: bool = False


class Workers:
    """The workers by id. Times are of the loop's clock."""

    def __init__(self, recorded: Mapping[str, tuple[str, bool]] | None = None) -> None:
        self._known: dict[str, _Known] = {}
        #: When each worker was first seen, as the database has it.
        self._registered = {name: at for name, (at, _) in (recorded or {}).items()}
        self._drained = {name for name, (_, drained) in (recorded or {}).items() if drained}

    def hear(self, worker: Worker, now: float) -> bool:
        """Take a worker's word; return whether it may have become able to do more."""
        known = self._known.get(worker.id)
        if known is None:
            self._known[worker.id] = _Known(worker, now, drained=worker.id in self._drained)
            return True
        more = (worker.status, worker.capabilities) != (known.worker.status, known.worker.capabilities)
        known.worker, known.heard, known.pulls = worker, now, False
        return more

    def pull(self, worker_id: str, labels: Sequence[str], now: float, at: str) -> Worker:
        """Take the word of a worker that asks for its tasks; return it."""
        known = self._known.get(worker_id)
        worker = Worker(
            id=worker_id, node_id=worker_id, status=WorkerStatus.ONLINE, capabilities=Capabilities(labels=[*labels]),
            last_heartbeat=at, detail="asks for its tasks itself",
        )  # fmt: skip
        if known is None:
            known = self._known[worker_id] = _Known(worker, now, drained=worker_id in self._drained)
        known.worker, known.heard, known.pulls = worker, now, True
        return worker

    def speak(self, worker_id: str, now: float, at: str) -> None:
        """Note a word under a lease of a worker that asks for its tasks; a node's worker is heard of otherwise."""
        known = self._known.get(worker_id)
        if known is not None and known.pulls:
            known.worker, known.heard = replace(known.worker, status=WorkerStatus.ONLINE, last_heartbeat=at), now

    def takes_orders(self, worker_id: str) -> bool:
        """Whether it is a node's worker that is there: it is given its tasks."""
        known = self._known.get(worker_id)
        heard = known is not None and not known.pulls and known.heard > 0.0
        return heard and known is not None and known.worker.status is not WorkerStatus.OFFLINE

    def is_drained(self, worker_id: str) -> bool:
        """Whether an operator lets a worker have no tasks."""
        return worker_id in self._drained

    def check_removable(self, worker_id: str) -> None:
        """Raise NotFoundError, or RefusedError for a worker that is there or holds tasks."""
        worker = self.get(worker_id)
        if worker.active_leases:
            raise RefusedError(
                f"worker {worker_id} holds {worker.active_leases} task{'s' * (worker.active_leases > 1)}",
                remedy=f"drain it and wait: `membridge worker drain {worker_id}`, or cancel them",
            )
        known = self._known.get(worker_id)
        if worker.status is not WorkerStatus.OFFLINE and not (known is not None and known.pulls):
            raise RefusedError(
                f"worker {worker_id} is {worker.status.value} and would be back at its next word",
                remedy="stop its daemon first; `membridge nodes revoke` cuts a machine off",
            )

    def forget(self, worker_id: str) -> None:
        """Know nothing of a worker any more."""
        for known in (self._known, self._registered):
            known.pop(worker_id, None)
        self._drained.discard(worker_id)

    def lose(self, worker_id: str, status: WorkerStatus, detail: str) -> None:
        """Give a worker no more tasks until it is heard of again."""
        known = self._known.get(worker_id)
        if known is not None:
            known.worker = replace(known.worker, status=status, detail=detail)

    def silent_since(self, instant: float) -> list[str]:
        """Return the workers that are believed to be there and were not heard of since."""
        return [
            known.worker.id
            for known in self._known.values()
            if known.heard < instant and known.worker.status is not WorkerStatus.OFFLINE
        ]

    def drain(self, worker_id: str, *, drained: bool) -> None:
        """Let a worker that is known have no new tasks, or have them again."""
        (self._drained.add if drained else self._drained.discard)(worker_id)
        if (known := self._known.get(worker_id)) is not None:
            known.drained = drained

    def register(self, worker: Worker, at: str) -> list[Write]:
        """Return what is to be written of a worker when it is heard of for the first time."""
        if worker.id in self._registered:
            return []
        self._registered[worker.id] = at
        return [Write(INSERT_WORKER, {"id": worker.id, "registered_at": at, "drained": 0})]

    def writes(self, worker: Worker, *, drained: bool) -> list[Write]:
        """Return what is to be written of a worker that is drained, or not any more."""
        return [Write(UPDATE_WORKER, {"b_id": worker.id, "b_drained": int(drained)})]

    def give(self, worker_id: str) -> None:
        """Count a task that the worker holds from now on."""
        known = self._known.get(worker_id)
        if known is None:
            # A lease of an earlier term, of a worker that was not heard of yet.
            absent = Worker(id=worker_id, node_id=worker_id)
            known = self._known[worker_id] = _Known(absent, 0.0, drained=worker_id in self._drained)
        known.held += 1

    def take(self, worker_id: str) -> None:
        """Count one less."""
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
        """Return the workers, by id, those of earlier terms too; one that is drained says so."""
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
    """Return why a worker takes no task now, for people; nothing when it does."""
    worker, detail = known.worker, known.worker.detail
    if known.pulls:
        return "asks for its tasks itself"
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
