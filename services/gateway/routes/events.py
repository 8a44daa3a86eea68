"""`GET /api/events`: what happens, as it happens: tasks, memories, jobs and nodes in one stream.

A caller gets what its key may read. The content of an item is the struct that NATS has: `task` a TaskEvent, `task_job`
a TaskJob, `memory` an event of a project, `job` a Job, `node` the presence of a node, `lease` the lease of a primary,
`audit` an AuditEntry.
A node that left and a lease that was given back are items without content.
"""

from schemas import streams, subjects
from schemas.buckets import LEADERSHIP, NODES, TASK_JOBS
from schemas.gateway import AnyEvent, FollowEvents
from schemas.identity import ProjectId
from schemas.streams import Retention, Stream
from schemas.web import Role
from services.gateway.callers import MEMORY, TASKS
from services.gateway.projects import Account, Projects
from services.gateway.runtime import Runtime
from services.web.broadcast import Source, of_stream
from services.web.routes import Call, Endpoint, Kind, Method, Permission, Route

EVENTS = Route(
    "events", Method.GET, "/api/events", FollowEvents, AnyEvent, "What happens, as it happens.",
    Permission("", Role.READER), kind=Kind.EVENTS,
)  # fmt: skip
#: Entries of present nodes, read as the stream that a bucket is.
_KEPT = f"$KV.{NODES.name}.>"
_PRESENCE = Stream(f"KV_{NODES.name}", (_KEPT,), Retention.LIMITS, max_bytes=NODES.max_bytes, max_age=0.0)
#: Leases of leadership, with each renewal.
_LEASED = f"$KV.{LEADERSHIP.name}.>"
_LEASES = Stream(f"KV_{LEADERSHIP.name}", (_LEASED,), Retention.LIMITS, max_bytes=LEADERSHIP.max_bytes, max_age=0.0)
#: Changes of many tasks, with each step.
_CHANGED = f"$KV.{TASK_JOBS.name}.>"
_CHANGES = Stream(f"KV_{TASK_JOBS.name}", (_CHANGED,), Retention.LIMITS, max_bytes=TASK_JOBS.max_bytes, max_age=0.0)


def endpoints(tasks: Runtime, projects: Projects) -> list[Endpoint]:
    """Return the endpoint of events."""

    async def sources(request: FollowEvents, call: Call) -> dict[str, Source]:
        named = projects.checked(request.project) if request.project is not None else None
        found: dict[str, Source] = {}
        if call.identity.may("keys", Role.ADMIN) and named is None:
            found["audit"] = of_stream(tasks.bus, streams.WEB_AUDIT, subjects.wildcard(subjects.WEB_AUDIT))
        if call.identity.may(TASKS, Role.READER) and named is None:
            found["task"] = of_stream(tasks.bus, streams.TASKS, subjects.wildcard(subjects.TASK_EVENT))
            found["task_job"] = of_stream(tasks.bus, _CHANGES, _CHANGED)
        if call.identity.may(MEMORY, Role.READER):
            for account in projects.accounts:
                if named is None or account.project in {None, named}:
                    found |= _of(account, named)
        return found

    return [EVENTS.stream(sources)]


def _of(account: Account, named: ProjectId | None) -> dict[str, Source]:
    """Return the sources of an account: those of a project, or of all where they share it."""
    project, suffix = named or account.project or "*", f".{account.project}" if account.project else ""
    event = subjects.EVENT.format(project=project, kind="*", node="*")
    job = subjects.JOB.format(project=project, node="*", job="*")
    return {
        f"memory{suffix}": of_stream(account.bus, streams.EVENTS, event),
        f"job{suffix}": of_stream(account.bus, streams.JOBS, job),
        f"node{suffix}": of_stream(account.bus, _PRESENCE, _KEPT),
        f"lease{suffix}": of_stream(account.bus, _LEASES, f"$KV.{LEADERSHIP.name}.{project}"),
    }
