"""`membridge worker` and `artifact`: what runs tasks, and what they made."""

import click
from msgspec.structs import replace

from membridge.cli import requests, tables
from membridge.cli.command import DefaultGroup, Invocation, command
from schemas import subjects
from schemas.node import Empty
from schemas.results import Artifact, ArtifactRequest, ArtifactsReply, ArtifactsRequest
from schemas.subjects import Impact
from schemas.workers import Worker, WorkerRequest, WorkersReply

WORKER_COLUMNS = ("worker", "status", "tasks>", "at most>", "labels", "heard", "~detail")
ARTIFACT_COLUMNS = ("id", "made", "~task")


@command("list", impact=Impact.READ)
def list_workers(invocation: Invocation) -> None:
    """List the workers."""
    invocation.show(requests.ask_runtime(invocation, subjects.WORKERS, Empty()), print_workers)


@command("show", impact=Impact.READ)
@click.argument("worker_id", metavar="WORKER")
def show(invocation: Invocation, worker_id: str) -> None:
    """Show a worker."""
    invocation.show(requests.ask_runtime(invocation, subjects.WORKER, WorkerRequest(id=worker_id)), print_worker)


@command("drain", impact=Impact.WRITE)
@click.argument("worker_id", metavar="WORKER")
def drain(invocation: Invocation, worker_id: str) -> None:
    """Give a worker no new tasks; it finishes those it runs."""
    invocation.show(requests.ask_runtime(invocation, subjects.DRAIN, WorkerRequest(id=worker_id)), print_worker)


@command("resume", impact=Impact.WRITE)
@click.argument("worker_id", metavar="WORKER")
def resume(invocation: Invocation, worker_id: str) -> None:
    """Give a drained worker tasks again."""
    invocation.show(requests.ask_runtime(invocation, subjects.RESUME, WorkerRequest(id=worker_id)), print_worker)


@command("remove", impact=Impact.WRITE)
@click.argument("worker_id", metavar="WORKER")
def remove(invocation: Invocation, worker_id: str) -> None:
    """Remove a worker that is gone.

    The records of its attempts stay. If it comes back, it is a new worker.
    """
    invocation.show(
        requests.ask_runtime(invocation, subjects.REMOVE_WORKER, WorkerRequest(id=worker_id)), print_removed
    )


worker = DefaultGroup(
    "worker",
    default="list",
    commands=[list_workers, show, drain, resume, remove],
    summary="List, drain, resume or remove the workers that run tasks.",
)


@command("list", impact=Impact.READ)
@click.option("--task", "task_id", metavar="ID", help="Only artifacts of this task.")
@click.option(
    "--limit", type=click.IntRange(1, 1000), metavar="N", default=20, show_default=True, help="How many to list."
)
def list_artifacts(invocation: Invocation, task_id: str | None, limit: int) -> None:
    """List artifacts, newest first."""
    request = ArtifactsRequest(task_id=task_id, limit=limit)
    invocation.show(requests.ask_runtime(invocation, subjects.ARTIFACTS, request), print_artifacts)


@command("get", impact=Impact.READ)
@click.argument("artifact_id", metavar="ID")
def get(invocation: Invocation, artifact_id: str) -> None:
    """Print an artifact's content."""
    found = requests.ask_runtime(invocation, subjects.ARTIFACT, ArtifactRequest(id=artifact_id))
    pieces, following = [found.content or ""], found.next_offset
    while following is not None:
        more = requests.ask_runtime(invocation, subjects.ARTIFACT, ArtifactRequest(id=artifact_id, offset=following))
        pieces.append(more.content or "")
        following = more.next_offset
    invocation.show(replace(found, content="".join(pieces), next_offset=None), print_artifact)


artifact = DefaultGroup(
    "artifact", default="list", commands=[list_artifacts, get], summary="List or read the artifacts of tasks."
)


def print_workers(reply: WorkersReply) -> None:
    """Print a line for each worker."""

    def row(one: Worker) -> tuple[str, ...]:
        able = one.capabilities
        return (
            one.id, one.status.value, str(one.active_leases), str(able.max_concurrency), ", ".join(able.labels) or "-",
            tables.ago(one.last_heartbeat) if one.last_heartbeat else "-", one.detail,
        )  # fmt: skip

    tables.table(WORKER_COLUMNS, map(row, reply.workers), empty="no worker yet")


def print_worker(one: Worker) -> None:
    """Print a worker's facts."""
    tables.facts(
        [
            ("worker", one.id),
            ("status", one.status.value),
            ("detail", one.detail),
            ("claude", "yes" if one.capabilities.claude_cli else "no"),
            ("tasks", f"{one.active_leases} of {one.capabilities.max_concurrency}"),
            ("labels", ", ".join(one.capabilities.labels)),
            ("heard", tables.ago(one.last_heartbeat) if one.last_heartbeat else ""),
            ("registered", tables.when(one.registered_at) if one.registered_at else ""),
            ("observations", f"{one.obs_count:,}"),
            ("memory", one.db_sha[:16]),
            ("version", " ".join(part for part in (one.agent_version, one.install_method) if part)),
            ("system", one.os_info),
            ("addresses", ", ".join(one.ip_addrs)),
            *(("runs", f"task {lease.task_id}, heard {tables.ago(lease.last_heartbeat)}") for lease in one.leases),
        ]
    )


def print_removed(one: Worker) -> None:
    """Say that a worker was removed."""
    click.echo(f"worker {one.id} was removed; its attempts stay: `membridge task runs --worker {one.id}`")


def print_artifacts(reply: ArtifactsReply) -> None:
    """Print a line for each artifact."""

    def row(one: Artifact) -> tuple[str, ...]:
        return one.id, tables.when(one.created_at), one.task_id

    tables.table(ARTIFACT_COLUMNS, map(row, reply.artifacts), empty="no artifact yet")


def print_artifact(one: Artifact) -> None:
    """Print an artifact's content."""
    click.echo(one.content or "")
