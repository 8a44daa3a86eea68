"""What events need from the database, read before they are applied: all of a batch in one query of a kind."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from msgspec.structs import replace

from membridge.errors import InvalidRequestError, MembridgeError
from membridge.system import clock
from services.coordinator.engine import machine
from services.coordinator.engine.events import Asked, Cancelled, Event, Loaded, Requeued, Submitted
from services.coordinator.engine.machine import LIVE, TaskState
from services.coordinator.engine.reports import CONTEXTS, STICKY_SECONDS
from services.coordinator.engine.state import Recorded, State
from services.coordinator.shell import Entry, refuse
from services.coordinator.store.queries import LATEST, Queries, RecordedTask

#: Live tasks that one query reads.
PAGE = 2_000


class Lookups:
    """Reads for one tenure."""

    def __init__(self, state: State, queries: Queries) -> None:
        self._state, self._queries = state, queries

    def wanted(self, batch: Sequence[Entry]) -> bool:
        """Whether any of the events needs something."""
        return any(self._need(entry.event) is not None for entry in batch)

    async def fill_in(self, batch: Sequence[Entry]) -> Sequence[Entry]:
        """Fill in what the events need; refuse those whose reading failed and return the others."""
        needs = [self._need(entry.event) for entry in batch]
        try:
            known = await self._read([need for need in needs if need is not None])
        except MembridgeError as error:
            for entry, need in zip(batch, needs, strict=True):
                if need is not None:
                    refuse(entry, error)
            return [entry for entry, need in zip(batch, needs, strict=True) if need is None]
        for entry, need in zip(batch, needs, strict=True):
            if need is not None:
                entry.event = _filled(entry.event, need, known)
        return batch

    async def _read(self, needs: Sequence["_Need"]) -> "_Known":
        keys = {need.key for need in needs if need.key is not None}
        tasks = {need.task for need in needs if need.task is not None}
        leases = {need.lease for need in needs if need.lease is not None}
        return _Known(
            keys=await self._queries.tasks_of_keys(keys) if keys else {},
            tasks={name: state_of(one) for name, one in (await self._queries.recorded(tasks)).items()} if tasks else {},
            leases=await self._queries.leases_among(leases) if leases else set(),
        )

    def _need(self, event: Event) -> "_Need | None":
        match event:
            case Submitted(task=task) if task.idempotency_key is not None:
                return _Need(key=task.idempotency_key)
            case Cancelled(task_id=task_id) | Requeued(task_id=task_id) if task_id not in self._state.tasks:
                return _Need(task=task_id)
            case Asked(request=request, lease_id=lease_id):
                task = request.task_id if request.task_id not in self._state.tasks else None
                lease = lease_id if request.nonce and lease_id not in self._state.leases else None
                return _Need(task=task, lease=lease) if task is not None or lease is not None else None
            case _:
                return None

    async def load(self, kept: Collection[str]) -> Loaded:
        """Return what a new tenure begins with; `kept` are the leases that KV has."""
        since = clock.stamp(clock.now() - timedelta(seconds=STICKY_SECONDS))
        leases, tasks = await self._queries.active_leases(), list[RecordedTask]()
        while True:
            page = await self._queries.live([*LIVE], after=tasks[-1].seq if tasks else 0, limit=PAGE)
            tasks += page
            if len(page) < PAGE:
                break
        return Loaded(
            tasks=[state_of(one) for one in tasks],
            leases=leases,
            kept=frozenset(kept),
            workers={
                name: Recorded(at, drained) for name, (at, drained) in (await self._queries.known_workers()).items()
            },
            last=await self._queries.last_runs(since=since, limit=CONTEXTS),
            seq=await self._queries.last_seq(),
        )


@dataclass(frozen=True, slots=True)
class _Need:
    """The key, the task and the lease that an event needs looked up."""

    key: str | None = None
    task: str | None = None
    lease: str | None = None


@dataclass(frozen=True, slots=True)
class _Known:
    """What the database has of what was needed: tasks by key, tasks by id, leases."""

    keys: Mapping[str, str]
    tasks: Mapping[str, TaskState]
    leases: Collection[str]


def _filled(event: Event, need: _Need, known: _Known) -> Event:
    match event:
        case Submitted() if need.key is not None:
            return replace(event, known=known.keys.get(need.key))
        case Cancelled() | Requeued() if need.task is not None:
            return replace(event, known=known.tasks.get(need.task))
        case Asked():
            if need.task is not None:
                found = known.tasks.get(need.task)
                event = replace(event, status=found.status if found is not None else None)
            return replace(event, used=need.lease in known.leases) if need.lease is not None else event
        case _:
            return event


def instant(text: str | None) -> float:
    """Return a time stamp in seconds, 0 for None. Raises InvalidRequestError."""
    if text is None:
        return 0.0
    try:
        at = clock.parse(text)
    except ValueError as error:
        raise InvalidRequestError(
            f"{text!r} is not a time with its offset from UTC",
            remedy="write it as 2026-01-31T18:00:00Z",
            field="not_before",
        ) from error
    if (seconds := at.timestamp()) > LATEST:
        raise InvalidRequestError(f"{text!r} is too far in the future", field="not_before")
    return max(0.0, seconds)


def state_of(recorded: RecordedTask) -> TaskState:
    """Return the part of a task of the database that changes."""
    return machine.state_of(recorded.task, seq=recorded.seq, not_before=instant(recorded.task.not_before))
