"""Ask this machine's daemon, or do the work in this process when none answers.

Every command that needs a node goes through here; nothing else in the command line opens a connection.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TypeVar

from membridge.aio.deadline import Deadline
from membridge.aio.tasks import background
from membridge.bus.caller import own_name
from membridge.bus.connection import Bus, connect
from membridge.bus.kv import open_bucket
from membridge.bus.options import BusOptions
from membridge.bus.rpc import RpcClient
from membridge.bus.subscription import Subscription
from membridge.cli import progress
from membridge.cli.command import Invocation, quiet
from membridge.cli.progress import Meter
from membridge.errors import (
    CredentialsError,
    DeadlineExceededError,
    InvalidRequestError,
    NoResponderError,
    NotOnWindowsError,
    UnavailableError,
    UnknownProjectError,
)
from membridge.node import registry
from membridge.node.jobs import LISTED, Jobs
from membridge.node.presence import present
from membridge.settings import ProjectConfig
from membridge.system.windows import on_windows
from membridge.wiring.bus import bus_options, runtime_options
from schemas import subjects
from schemas.buckets import LEADERSHIP, NODES
from schemas.events import Progress, decode_event
from schemas.identity import InvalidTokenError, ProjectId, canonical_id, node_id
from schemas.node import DoctorReply, Empty, Job, JobsReply, NodesReply
from schemas.subjects import Operation
from schemas.wire import Wire

Q = TypeVar("Q", bound=Wire)
R = TypeVar("R", bound=Wire)
T = TypeVar("T")

#: Seconds to wait for a server that does not answer; the bus gives its reason before that.
CONNECT = 5.0
#: Seconds that a command waits longer than a job may take, so that the daemon reports why it gave up.
REASON = 5.0
#: Seconds that an examination may take.
EXAMINED = 30.0
#: Operations that are jobs: they show progress, and their deadline is the configured one.
JOBS = frozenset(
    operation.name
    for operation in (
        subjects.PUSH,
        subjects.PULL,
        subjects.VERIFY,
        subjects.GC,
        subjects.DIFF,
        subjects.EXTRACT,
        subjects.RESTORE,
        subjects.RESTORE_BACKUP,
        subjects.RECOVER,
    )
)
#: Operations that this process can do itself while no daemon runs.
LOCAL = JOBS | {
    operation.name
    for operation in (
        subjects.STATUS,
        subjects.HISTORY,
        subjects.TAG,
        subjects.BACKUPS,
        subjects.CONFLICTS,
        subjects.QUARANTINE,
    )
}
NO_COORDINATOR = (
    "start one on the server's machine with `membridge coordinator`, or `membridge up` with MEMBRIDGE_COORDINATOR=1"
)
NO_DAEMON = "start it with `membridge up` or `membridge node`"
ON_OTHER = "start one on another machine: `membridge node`"
#: For a command that a node of another machine can carry out.
ON_NODE_THERE = "name the node that is to do it: `--node NODE`; `membridge nodes` lists them"


def ask(invocation: Invocation, operation: Operation[Q, R], request: Q) -> R:
    """Return the reply to `request`, from this node's daemon or, when there is none, from this process."""
    _needs_node(operation.name)
    return asyncio.run(_ask(invocation, operation, request))


def ask_daemon(invocation: Invocation, operation: Operation[Q, R], request: Q, **tokens: str) -> R:
    """Return the daemon's reply. Raises NoResponderError when none runs.

    The operation's subject is filled with the project that is meant, and with `tokens`.
    """

    async def asked() -> R:
        deadline, filled = Deadline.after(operation.deadline), {"project": project_id(invocation), **tokens}
        async with _connected(invocation, deadline) as bus:
            try:
                return await RpcClient(bus).request(operation, request, deadline=deadline, **filled)
            except NoResponderError as error:
                raise _no_daemon(invocation) from error

    return asyncio.run(asked())


def ask_node(invocation: Invocation, operation: Operation[Q, R], request: Q, node: str) -> R:
    """Return the reply of the daemon of `node`, which its own machine, an operator and a gateway may ask.

    Errors: ForbiddenError for any other member, NoResponderError when that node is not present.
    """
    try:
        tokens = {"project": project_id(invocation), "node": node_id(node)}
    except InvalidTokenError as error:
        raise InvalidRequestError(str(error), remedy="`membridge nodes` lists the nodes", field="node") from error

    async def asked() -> R:
        seconds = operation.deadline
        if operation.name in JOBS:
            seconds = invocation.settings.lane.operation_timeout_seconds + REASON
        deadline = Deadline.after(seconds)
        with progress.shown(operation.name, quiet=invocation.as_json) as meter:
            async with connect(_operators_options(invocation), deadline=deadline.sooner(CONNECT)) as bus:
                return await _of_node(bus, operation, request, tokens, meter=meter, deadline=deadline)

    try:
        return asyncio.run(asked())
    except NoResponderError as error:
        raise NoResponderError(
            f"no daemon of node {node} answers", remedy="run `membridge nodes` to list those that are present"
        ) from error


def _operators_options(invocation: Invocation) -> BusOptions:
    """Return how to connect as the operator of the project where this machine has that key, else as its node."""
    settings = invocation.settings
    quiet(settings)
    if settings.nats.listen is not None:
        from membridge.cli.access import server_files_of  # noqa: PLC0415 - cryptography, where the server for others is

        server_files = server_files_of(invocation)
        options = server_files.options(server_files.operator_of(project_id(invocation)), "membridge command", inbox="")
        return replace(options, caller=own_name(settings.node.id))
    served = served_project(invocation)
    return bus_options(settings, "membridge command", served.nkey_seed_file if served else None)


@asynccontextmanager
async def runtime_bus(invocation: Invocation) -> AsyncGenerator[Bus]:
    """Connect as a command that talks to the task runtime."""
    quiet(invocation.settings)
    options = runtime_options(invocation.settings, "membridge command")
    async with connect(options, deadline=Deadline.after(CONNECT)) as bus:
        yield bus


async def of_runtime(bus: Bus, operation: Operation[Q, R], request: Q) -> R:
    """Return a coordinator's reply. Raises NoResponderError when none runs."""
    try:
        return await RpcClient(bus).request(operation, request)
    except NoResponderError as error:
        raise NoResponderError("no coordinator answers: tasks need one", remedy=NO_COORDINATOR) from error


def ask_runtime(invocation: Invocation, operation: Operation[Q, R], request: Q) -> R:
    """Return a coordinator's reply. Raises NoResponderError when none runs."""

    async def asked() -> R:
        async with runtime_bus(invocation) as bus:
            return await of_runtime(bus, operation, request)

    return asyncio.run(asked())


def present_nodes(invocation: Invocation) -> NodesReply:
    """Return the nodes whose presence is in KV now, and which of their projects have no primary."""

    async def read() -> NodesReply:
        deadline = Deadline.after(subjects.STATUS.deadline)
        async with _connected(invocation, deadline) as bus:
            replicas = invocation.settings.nats.replicas
            bucket = await open_bucket(bus, NODES, replicas=replicas, deadline=deadline)
            leases = await open_bucket(bus, LEADERSHIP, replicas=replicas, deadline=deadline)
            return await present(bucket, leases, deadline=deadline)

    return asyncio.run(read())


def ask_jobs(invocation: Invocation) -> JobsReply:
    """Return the newest jobs of the project, from the stream that keeps them: no daemon is needed for that."""

    async def listed(jobs: Jobs, deadline: Deadline) -> JobsReply:
        return JobsReply(jobs=await jobs.listed(limit=LISTED, deadline=deadline))

    return _from_jobs(invocation, listed)


def ask_job(invocation: Invocation, job_id: str) -> Job:
    """Return one job by its id, or by the end of it as `membridge jobs` shows it. Raises NotFoundError."""

    async def found(jobs: Jobs, deadline: Deadline) -> Job:
        listed = await jobs.listed(limit=LISTED, deadline=deadline)
        known = [job for job in listed if job.id.endswith(job_id)]
        return known[0] if len(known) == 1 else await jobs.one(job_id, deadline=deadline)

    return _from_jobs(invocation, found)


def _from_jobs(invocation: Invocation, read: Callable[[Jobs, Deadline], Awaitable[T]]) -> T:
    async def asked() -> T:
        deadline = Deadline.after(subjects.JOBS.deadline)
        async with _connected(invocation, deadline) as bus:
            return await read(Jobs(bus, project_id(invocation), invocation.settings.node.id), deadline)

    return asyncio.run(asked())


def examine(invocation: Invocation, node: str | None) -> DoctorReply:
    """Return what the doctor of a daemon finds, or of this process where no daemon of this machine answers."""
    if node is not None:
        return ask_node(invocation, subjects.DOCTOR, Empty(), node)
    _needs_node(subjects.DOCTOR.name)
    try:
        return asyncio.run(_ask_node(invocation, subjects.DOCTOR, Empty(), deadline=Deadline.after(EXAMINED)))
    except (UnavailableError, CredentialsError, DeadlineExceededError):
        project = _required(invocation)
        from membridge.node.oneshot import examine_here  # noqa: PLC0415 - the whole node, loaded only when it works here

        quiet(invocation.settings)
        return asyncio.run(examine_here(invocation.settings, project, deadline=Deadline.after(EXAMINED)))


async def _ask(invocation: Invocation, operation: Operation[Q, R], request: Q) -> R:
    seconds = operation.deadline
    if operation.name in JOBS:
        seconds = invocation.settings.lane.operation_timeout_seconds + REASON
    deadline = Deadline.after(seconds)
    with progress.shown(operation.name, quiet=invocation.as_json) as meter:
        try:
            async with _connected(invocation, deadline) as bus:
                return await _by_daemon(bus, invocation, operation, request, meter=meter, deadline=deadline)
        except NoResponderError as error:
            if operation.name not in LOCAL:
                raise _no_daemon(invocation) from error
        project = _required(invocation)
        from membridge.node.oneshot import run_local  # noqa: PLC0415 - the whole node, loaded only when it works here

        async with deadline.scope(operation.name):
            return await run_local(invocation.settings, operation, request, project=project, progress=meter)


async def _by_daemon(
    bus: Bus, invocation: Invocation, operation: Operation[Q, R], request: Q, *, meter: Meter, deadline: Deadline
) -> R:
    tokens = {"project": project_id(invocation), "node": invocation.settings.node.id}
    return await _of_node(bus, operation, request, tokens, meter=meter, deadline=deadline)


async def _of_node(
    bus: Bus, operation: Operation[Q, R], request: Q, tokens: Mapping[str, str], *, meter: Meter, deadline: Deadline
) -> R:
    client = RpcClient(bus)
    if operation.name not in JOBS:
        return await client.request(operation, request, deadline=deadline, **tokens)
    async with bus.subscribe(subjects.fill(subjects.PROGRESS, **tokens)) as messages, background() as group:
        group.create_task(_relay(messages, operation.name, meter), name="progress")
        return await client.request(operation, request, deadline=deadline, **tokens)


async def _ask_node(invocation: Invocation, operation: Operation[Q, R], request: Q, *, deadline: Deadline) -> R:
    tokens = {"project": project_id(invocation), "node": invocation.settings.node.id}
    async with _connected(invocation, deadline) as bus:
        return await RpcClient(bus).request(operation, request, deadline=deadline, **tokens)


async def _relay(messages: Subscription, kind: str, meter: Meter) -> None:
    async for message in messages:
        event = decode_event(message.body)
        if isinstance(event, Progress) and event.kind == kind:
            meter(event.step, event.done, event.total)


@asynccontextmanager
async def _connected(invocation: Invocation, deadline: Deadline) -> AsyncGenerator[Bus]:
    settings = invocation.settings
    quiet(settings)
    served = served_project(invocation)
    options = bus_options(settings, "membridge command", served.nkey_seed_file if served else None)
    async with connect(options, deadline=deadline.sooner(CONNECT)) as bus:
        yield bus


def served_project(invocation: Invocation) -> ProjectConfig | None:
    """Return the project that is meant, None when this node does not serve it."""
    named = invocation.project_name
    projects = registry.load(invocation.settings)
    return next((item for item in projects if named in {None, item.name, item.id}), None)


def _required(invocation: Invocation) -> ProjectConfig:
    """Return the project that is meant; raise UnknownProjectError when this node does not serve it."""
    project = served_project(invocation)
    if project is None:
        raise UnknownProjectError(f"this node does not serve project {invocation.project_name!r}", field="project")
    return project


def project_id(invocation: Invocation) -> ProjectId:
    """Return the canonical id of the project that is meant, whether this node serves it or not."""
    served = served_project(invocation)
    return served.id if served else canonical_id(str(invocation.project_name))


def _needs_node(operation: str) -> None:
    """Raise NotOnWindowsError on Windows, where this process has no node to ask and no database to work with."""
    if on_windows():
        raise NotOnWindowsError(f"`membridge {operation}` needs a node, and none runs on Windows", remedy=ON_NODE_THERE)


def _no_daemon(invocation: Invocation) -> NoResponderError:
    if on_windows():
        return NoResponderError("no node of the project answers", remedy=ON_OTHER)
    return NoResponderError(f"no daemon of node {invocation.settings.node.id} answers", remedy=NO_DAEMON)
