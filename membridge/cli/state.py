"""`membridge status`, `nodes` and `jobs`: what is going on, on this node and around it."""

from collections.abc import Iterator

import click

from membridge.cli import access, units
from membridge.cli.command import DefaultGroup, Invocation, command
from membridge.errors import BusUnavailableError
from schemas import subjects
from schemas.leadership import Role
from schemas.node import Empty, Job, JobsReply, NodePresence, NodesReply, StatusReply
from schemas.subjects import Impact

NODE_COLUMNS = ("node", "seen", "version", "~project", "role", "seq>", "lag>", "unsynced>")
NO_PRIMARY = "no node is primary: run `membridge leader select NODE`"
#: The first columns are as wide as they must be; the result is folded below its heading.
JOB_COLUMNS = ("id", "started", "~node", "~by", "kind", "state", "took>", "*result")
STEP_COLUMNS = ("step", "took>")
#: Last characters of a job's id, by which `jobs show` finds it too.
SHORT_ID = 8


@command("status", impact=Impact.READ)
def status(invocation: Invocation) -> None:
    """Show what this node knows of a project."""
    from membridge.cli.asking import ask  # noqa: PLC0415 - the bus is loaded only where it is used

    try:
        reply = ask(invocation, subjects.STATUS, Empty())
    except BusUnavailableError as error:
        remedy = error.remedy or None
        raise BusUnavailableError(f"{error.message}: nothing is synchronised", remedy=remedy) from error
    invocation.show(reply, print_status)


@command("list", impact=Impact.READ)
def nodes(invocation: Invocation) -> None:
    """List the machines that are present."""
    from membridge.cli.asking import present_nodes  # noqa: PLC0415 - the bus is loaded only where it is used

    invocation.show(present_nodes(invocation), print_nodes)


nodes_group = DefaultGroup(
    "nodes",
    default="list",
    commands=[nodes, access.members, access.admit, access.revoke, access.access_log],
    summary="List the machines that are present; at the server, who was let in, and cut one off.",
)


@command("list", impact=Impact.READ)
def list_jobs(invocation: Invocation) -> None:
    """List pushes, pulls and other jobs of all nodes and how they ended, newest first."""
    from membridge.cli.asking import ask_jobs  # noqa: PLC0415 - the bus is loaded only where it is used

    invocation.show(ask_jobs(invocation), print_jobs)


@command("show", impact=Impact.READ)
@click.argument("job", metavar="ID")
def show_job(invocation: Invocation, job: str) -> None:
    """Show one job: who asked for it, where it ran, its steps, and how it ended."""
    from membridge.cli.asking import ask_job  # noqa: PLC0415 - the bus is loaded only where it is used

    invocation.show(ask_job(invocation, job), print_job)


jobs = DefaultGroup(
    "jobs", default="list", commands=[list_jobs, show_job], summary="List pushes, pulls and other jobs, or show one."
)


def print_status(reply: StatusReply) -> None:
    """Print a node's status."""
    from membridge.cli import tables  # noqa: PLC0415 - rich is loaded only where people read

    tables.facts(_status_facts(reply))


def print_nodes(reply: NodesReply) -> None:
    """Print a line for each node and project."""
    from membridge.cli import tables  # noqa: PLC0415 - rich is loaded only where people read

    rows = (row for node in reply.nodes for row in _node_rows(node))
    tables.table(NODE_COLUMNS, rows, empty="no node is present")
    for name in reply.leaderless:
        tables.line(f"{name}: {NO_PRIMARY}")
    for node in reply.nodes:
        for project in node.projects:
            if project.error:
                tables.line(f"{node.node}: {project.error}")


def print_jobs(reply: JobsReply) -> None:
    """Print a line for each job."""
    from membridge.cli import tables  # noqa: PLC0415 - rich is loaded only where people read

    def row(job: Job) -> tuple[str, ...]:
        took = units.took(job.started_at, job.ended_at)
        about = (job.id[-SHORT_ID:], tables.when(job.started_at), job.node, job.requested_by)
        return (*about, job.kind, job.state, took, job.error or job.result)

    tables.table(JOB_COLUMNS, map(row, reply.jobs), empty="no job yet")


def print_job(job: Job) -> None:
    """Print one job and its steps."""
    from membridge.cli import tables  # noqa: PLC0415 - rich is loaded only where people read

    tables.facts(_job_facts(job))
    if job.steps:
        tables.line("")
        steps = ((step.name, units.duration(step.seconds)) for step in job.steps)
        tables.table(STEP_COLUMNS, steps, empty="")


def _status_facts(reply: StatusReply) -> Iterator[tuple[str, str]]:
    from membridge.cli import tables  # noqa: PLC0415 - rich is loaded only where people read

    project = reply.project
    up = f", up {units.duration(reply.uptime_seconds)}" if reply.uptime_seconds else ""
    memory = f", {units.size(reply.rss_bytes)} of memory" if reply.rss_bytes else ""
    yield "node", f"{reply.node} (membridge {reply.version}{up}{memory})"
    yield "project", f"{project.name} ({project.project})"
    if not reply.running:
        yield "daemon", "no daemon runs: nothing is synchronised; start it with `membridge up` or `membridge node`"
    if project.error:
        yield "error", project.error
        yield "database", tables.short(project.database)
        return
    yield "role", _role(reply)
    behind = f", {units.count(project.lag, 'commit')} behind" if project.lag else ", up to date"
    yield "snapshot", f"{project.mirror_seq} of {project.head_seq}{behind}" if project.head_seq else "none yet"
    yield "database", tables.short(project.database)
    yield "rows", ", ".join(f"{number:,} {table}" for table, number in project.rows.items())
    yield "unsynced", units.count(project.unsynced, "row") if project.unsynced else ""
    yield "conflicts", f"{project.conflicts}: see `membridge conflicts`" if project.conflicts else ""
    yield "quarantined", f"{project.quarantined}: see `membridge quarantine`" if project.quarantined else ""
    yield "last error", reply.last_error or ""


def _job_facts(job: Job) -> Iterator[tuple[str, str]]:
    from membridge.cli import tables  # noqa: PLC0415 - rich is loaded only where people read

    yield "id", job.id
    yield "kind", job.kind
    yield "node", job.node
    yield "by", job.requested_by
    yield "state", job.state
    yield "started", tables.when(job.started_at)
    yield "took", units.took(job.started_at, job.ended_at)
    yield "result", job.result
    yield "error", job.error or ""


def _role(reply: StatusReply) -> str:
    project = reply.project
    if reply.primary is None and project.role is not Role.PRIMARY:
        return f"{project.role}; {NO_PRIMARY}"
    primary = f"; {reply.primary} is primary" if reply.primary not in (None, reply.node) else ""
    return f"{project.role}{primary}, epoch {project.epoch}"


def _node_rows(node: NodePresence) -> Iterator[tuple[str, ...]]:
    from membridge.cli import tables  # noqa: PLC0415 - rich is loaded only where people read

    about = (node.node, tables.ago(node.updated_at), node.version)
    if not node.projects:
        yield (*about, "", "", "", "", "")
    for project in node.projects:
        numbers = (str(project.mirror_seq), str(project.lag), str(project.unsynced))
        unknown = project.error and project.role is Role.NONE
        yield (*about, project.name, project.role, *(("?",) * 3 if unknown else numbers))
        about = ("", "", "")
