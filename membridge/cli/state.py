"""`membridge status`, `nodes`, `jobs` and `doctor`: what is going on, on this node and around it."""

from collections.abc import Iterator

import click

from membridge.cli import access, requests, tables, units
from membridge.cli.command import ON_NODE, DefaultGroup, Invocation, command
from membridge.errors import BusUnavailableError
from membridge.system import clock
from schemas import subjects
from schemas.leadership import Role
from schemas.node import Check, DoctorReply, Empty, Finding, Job, JobsReply, NodePresence, NodesReply, StatusReply
from schemas.subjects import Impact

NODE_COLUMNS = ("node", "seen", "version", "~project", "role", "seq>", "lag>", "unsynced>")
NO_PRIMARY = "no node is primary: run `membridge leader select NODE`"
#: The first columns are as wide as they must be; the result is folded below its heading.
JOB_COLUMNS = ("id", "started", "~node", "~by", "kind", "state", "took>", "*result")
STEP_COLUMNS = ("step", "took>")
#: Seconds for which a number counts as read for the answer that it is in.
RECENT = 2.0
#: Last characters of a job's id, by which `jobs show` finds it too.
SHORT_ID = 8


@command("status", impact=Impact.READ)
def status(invocation: Invocation) -> None:
    """Show what this node knows of a project."""
    try:
        reply = requests.ask(invocation, subjects.STATUS, Empty())
    except BusUnavailableError as error:
        remedy = error.remedy or None
        raise BusUnavailableError(f"{error.message}, so nothing is synchronised", remedy=remedy) from error
    invocation.show(reply, print_status)


@command("list", impact=Impact.READ)
def nodes(invocation: Invocation) -> None:
    """List the machines that are present."""
    invocation.show(requests.present_nodes(invocation), print_nodes)


nodes_group = DefaultGroup(
    "nodes",
    default="list",
    commands=[nodes, access.members, access.admit, access.revoke, access.invitations, access.access_log],
    summary="List machines. On the server's machine: who may connect; let a front end in, cut a machine off.",
)


@command("list", impact=Impact.READ)
def list_jobs(invocation: Invocation) -> None:
    """List the jobs of all nodes, newest first."""
    invocation.show(requests.jobs(invocation), print_jobs)


@command("show", impact=Impact.READ)
@click.argument("job", metavar="ID")
def show_job(invocation: Invocation, job: str) -> None:
    """Show who asked for a job, where it ran, and its steps."""
    invocation.show(requests.job(invocation, job), print_job)


jobs = DefaultGroup(
    "jobs", default="list", commands=[list_jobs, show_job], summary="List pushes, pulls and other jobs, or show one."
)


def print_status(reply: StatusReply) -> None:
    """Print a node's status."""
    tables.facts(_status_facts(reply))


def print_nodes(reply: NodesReply) -> None:
    """Print a line for each node and project."""
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

    def row(job: Job) -> tuple[str, ...]:
        took = units.took(job.started_at, job.ended_at)
        about = (job.id[-SHORT_ID:], tables.happened(job.started_at), job.node, job.requested_by)
        return (*about, job.kind, job.state, took, job.error or job.result)

    tables.table(JOB_COLUMNS, map(row, reply.jobs), empty="no job yet")


def print_job(job: Job) -> None:
    """Print one job and its steps."""
    tables.facts(_job_facts(job))
    if job.steps:
        tables.line("")
        steps = ((step.name, units.duration(step.seconds)) for step in job.steps)
        tables.table(STEP_COLUMNS, steps, empty="")


def _status_facts(reply: StatusReply) -> Iterator[tuple[str, str]]:
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
    seen = _as_of(project.head_at, reply.answered_at)
    yield "snapshot", f"{project.mirror_seq} of {project.head_seq}{behind}{seen}" if project.head_seq else "none yet"
    yield "database", tables.short(project.database)
    counted, noted = _as_of(project.counted_at, reply.answered_at), _as_of(project.journal_at, reply.answered_at)
    rows = ", ".join(f"{number:,} {table}" for table, number in project.rows.items())
    yield "rows", f"{rows}{counted}" if rows else "none" if project.counted_at else "not counted yet"
    yield "unsynced", f"{units.count(project.unsynced, 'row')}{counted}" if project.unsynced else ""
    yield "conflicts", f"{project.conflicts}{noted}: see `membridge conflicts`" if project.conflicts else ""
    yield "quarantined", f"{project.quarantined}{noted}: see `membridge quarantine`" if project.quarantined else ""
    yield "missed", f"{units.count(project.missed, 'key')}: see `membridge doctor`" if project.missed else ""
    yield "compared", f"all rows, {units.ago(project.audited_at, clock.now())}" if project.audited_at else ""
    yield "session events", _events(reply)
    yield "last error", reply.last_error or ""
    yield "as of", tables.when(reply.answered_at)


def _events(reply: StatusReply) -> str:
    waiting = f"{units.count(reply.events_waiting, 'event')} waiting" if reply.events_waiting else ""
    dropped = f"{units.count(reply.events_dropped, 'event')} dropped" if reply.events_dropped else ""
    told = ", ".join(one for one in (waiting, dropped) if one)
    return f"{told}: see `membridge doctor`" if told else ""


def _as_of(at: str, told_at: str) -> str:
    """Return of when a number is that a node told at an instant: nothing for one that it read for that."""
    then, now = clock.known(at), clock.known(told_at)
    if then is None or now is None or (now - then).total_seconds() < RECENT:
        return ""
    return f" (as of {units.ago(at, now)})"


def _job_facts(job: Job) -> Iterator[tuple[str, str]]:
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
    about = (node.node, tables.ago(node.updated_at), node.version)
    if not node.projects:
        yield (*about, "", "", "", "", "")
    for project in node.projects:
        unsynced = f"{project.unsynced}{_as_of(project.counted_at, node.updated_at)}"
        numbers = (str(project.mirror_seq), str(project.lag), unsynced)
        unknown = project.error and project.role is Role.NONE
        yield (*about, project.name, project.role, *(("?",) * 3 if unknown else numbers))
        about = ("", "", "")


@command("doctor", impact=Impact.READ, warns=False)
@ON_NODE
@click.pass_context
def doctor(context: click.Context, invocation: Invocation, node: str | None) -> None:
    """Check everything that this node needs, and say what to do.

    The exit code is 1 when a check fails.
    """
    reply = requests.examine(invocation, node)
    invocation.show(reply, print_checks)
    if any(check.finding is Finding.FAIL for check in reply.checks):
        context.exit(1)


def print_checks(reply: DoctorReply) -> None:
    """Print the checks, each with its remedy below it, and their sum."""
    rows = [(check.finding.upper(), check.name, _check_detail(check)) for check in reply.checks]
    tables.table(("", "check", "*found"), rows, empty="nothing to check")
    failed = sum(check.finding is Finding.FAIL for check in reply.checks)
    warned = sum(check.finding is Finding.WARN for check in reply.checks)
    skipped = sum(check.finding is Finding.SKIPPED for check in reply.checks)
    if failed or warned or skipped:
        found = f"{units.count(failed, 'failure')}, {units.count(warned, 'warning')}"
        tables.line(f"\n{found}, {skipped} not checked" if skipped else f"\n{found}")
    else:
        tables.line("\nall is well")


def _check_detail(check: Check) -> str:
    return f"{check.detail}\n-> {check.remedy}" if check.remedy and check.finding is not Finding.OK else check.detail
