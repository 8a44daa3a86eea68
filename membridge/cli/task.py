"""`membridge task`: submit LLM tasks, follow them, read their results."""

import asyncio
import sys
from pathlib import Path

import click

from membridge.cli import requests, tables, units
from membridge.cli.command import DefaultGroup, Invocation, command
from membridge.errors import InvalidRequestError, RefusedError, TooLargeError
from schemas import subjects
from schemas.results import ResultReply
from schemas.runs import Run, RunsReply, RunsRequest, RunStatus
from schemas.subjects import Impact
from schemas.task_events import EventsRequest, TaskEvent, TaskEventKind
from schemas.tasks import OutputFormat, Task, TaskRequest, TaskSpec, TasksReply, TasksRequest, TaskStatus
from schemas.wire import WireError, convert, encode

#: Bytes of a prompt that `MEMBRIDGE_MAX_PROMPT_BYTES` may allow at most.
MOST_PROMPT = 8_388_608
RUN_COLUMNS = ("?id", "status", "began", "took>", "worker", "task", "~error")
COLUMNS = ("id", "status", "submitted", "?context", "~prompt")


@command("submit", impact=Impact.WRITE)
@click.argument("prompt")
@click.option(
    "--context",
    "context_id",
    metavar="NAME",
    help="Tasks of one context run in order, in one session.  [default: a context of its own]",
)
@click.option(
    "--agent", "agent_slug", default="default", show_default=True, metavar="NAME", help="Which agent runs it."
)
@click.option(
    "--hint",
    "hints",
    multiple=True,
    metavar="WHAT",
    help="File, glob, @agent/NAME or @memory/recent to read; may be repeated.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice([one.value for one in OutputFormat]),
    default="text",
    show_default=True,
    help="Form of the output.",
)
@click.option(
    "--timeout", type=int, metavar="SECONDS", default=120, show_default=True, help="How long one attempt may take."
)
@click.option(
    "--budget", type=int, metavar="TOKENS", default=0, help="Most tokens of context.  [default: the worker's limit]"
)
@click.option("--attempts", type=int, metavar="N", default=3, show_default=True, help="Most attempts.")
@click.option("--priority", type=int, metavar="N", default=5, show_default=True, help="0 to 9; higher runs first.")
@click.option(
    "--label", "labels", multiple=True, metavar="NAME", help="Run it only on workers with this label; may be repeated."
)
@click.option(
    "--not-before", metavar="TIME", help="Run it no earlier, as 2026-01-31T18:00; local, or with a zone as +01:00."
)
@click.option(
    "--key", "idempotency_key", metavar="KEY", help="Idempotency key: the same key again gives the same task."
)
@click.option("--wait", is_flag=True, help="Wait for the end and print the result.")
def submit(
    invocation: Invocation,
    prompt: str,
    form: str,
    timeout: int,
    budget: int,
    wait: bool,  # noqa: FBT001 - as above
    **given: object,
) -> None:
    """Submit a task.

    PROMPT is its text; `-` reads it from standard input, `@FILE` from a file.
    """
    spec = _spec(prompt, form, timeout, budget, given)
    if wait:
        reply = asyncio.run(_submit_and_follow(invocation, spec))
        _conclude(invocation, reply)
    else:
        invocation.show(asyncio.run(_submit(invocation, spec)), print_task)


@command("list", impact=Impact.READ)
@click.option("--status", type=click.Choice([one.value for one in TaskStatus]), help="Only tasks in this state.")
@click.option("--context", "context_id", metavar="NAME", help="Only tasks of this context.")
@click.option(
    "--limit", type=click.IntRange(1, 1000), metavar="N", default=20, show_default=True, help="How many to list."
)
@click.option("--before", metavar="ID", help="Only those older than ID: the next page.")
def list_tasks(
    invocation: Invocation, status: str | None, context_id: str | None, limit: int, before: str | None
) -> None:
    """List tasks, newest first."""
    wanted = TaskStatus(status) if status else None
    request = TasksRequest(status=wanted, context_id=context_id, limit=limit, before=before)
    invocation.show(requests.ask_runtime(invocation, subjects.TASKS, request), print_tasks)


@command("show", impact=Impact.READ)
@click.argument("task_id", metavar="ID")
def show(invocation: Invocation, task_id: str) -> None:
    """Show a task, and what it waits for."""
    invocation.show(requests.ask_runtime(invocation, subjects.TASK, TaskRequest(id=task_id)), print_task)


@command("result", impact=Impact.READ)
@click.argument("task_id", metavar="ID")
def result(invocation: Invocation, task_id: str) -> None:
    """Print a task's output.

    The exit code is 1 when there is none.
    """
    _conclude(invocation, requests.ask_runtime(invocation, subjects.RESULT, TaskRequest(id=task_id)))


@command("cancel", impact=Impact.WRITE)
@click.argument("task_id", metavar="ID")
@click.option("--reason", default="", metavar="TEXT", help="Why, for the records.")
def cancel(invocation: Invocation, task_id: str, reason: str) -> None:
    """Cancel a task; a worker that runs it stops."""
    invocation.show(
        requests.ask_runtime(invocation, subjects.CANCEL, TaskRequest(id=task_id, reason=reason)), print_task
    )


@command("requeue", impact=Impact.WRITE)
@click.argument("task_id", metavar="ID")
def requeue(invocation: Invocation, task_id: str) -> None:
    """Queue a failed or dead task again, with all its attempts."""
    invocation.show(requests.ask_runtime(invocation, subjects.REQUEUE, TaskRequest(id=task_id)), print_task)


@command("runs", impact=Impact.READ)
@click.option("--task", "task_id", metavar="ID", help="Only attempts of this task.")
@click.option("--worker", "worker_id", metavar="NAME", help="Only attempts on this worker.")
@click.option("--status", type=click.Choice([one.value for one in RunStatus]), help="Only attempts in this state.")
@click.option(
    "--limit", type=click.IntRange(1, 1000), metavar="N", default=20, show_default=True, help="How many to list."
)
@click.option("--before", metavar="ID", help="Only those older than ID: the next page.")
def runs(
    invocation: Invocation,
    task_id: str | None,
    worker_id: str | None,
    status: str | None,
    limit: int,
    before: str | None,
) -> None:
    """List attempts, newest first, and how each ended."""
    wanted = RunStatus(status) if status else None
    request = RunsRequest(status=wanted, task_id=task_id, worker_id=worker_id, limit=limit, before=before)
    invocation.show(requests.ask_runtime(invocation, subjects.RUNS, request), print_runs)


@command("logs", impact=Impact.READ)
@click.argument("task_id", metavar="ID")
@click.option("-f", "--follow", is_flag=True, help="Follow it until the task ends.")
def logs(invocation: Invocation, task_id: str, follow: bool) -> None:  # noqa: FBT001 - click passes options so
    """Print the events of a task.

    These are changes of its status, steps, and lines that the program wrote to standard error.
    """
    asyncio.run(_logs(invocation, task_id, follow=follow))


task = DefaultGroup(
    "task",
    default="list",
    commands=[submit, list_tasks, show, runs, logs, cancel, requeue, result],
    summary="Submit LLM tasks, follow them, read their results.",
)


def print_task(found: Task) -> None:
    """Print a task's facts."""
    tables.facts(
        [
            ("task", found.id),
            ("status", found.status.value),
            ("why", found.reason),
            ("context", found.context_id),
            ("agent", found.agent_slug),
            ("worker", found.worker_id or ""),
            ("attempts", f"{found.attempts} of {found.max_attempts}"),
            ("labels", ", ".join(found.labels)),
            ("not before", tables.when(found.not_before) if found.not_before else ""),
            ("submitted", tables.when(found.created_at)),
            ("changed", tables.when(found.updated_at)),
        ]
    )


def print_tasks(reply: TasksReply) -> None:
    """Print a line for each task."""

    def row(one: Task) -> tuple[str, ...]:
        prompt = " ".join(one.prompt.split())
        return one.id, one.status.value, tables.happened(one.created_at), one.context_id, prompt

    tables.table(COLUMNS, map(row, reply.tasks), empty="no task yet")
    if reply.more:
        tables.line(f"more: `membridge task list --before {reply.tasks[-1].id}`")


def print_runs(reply: RunsReply) -> None:
    """Print a line for each run."""

    def row(one: Run) -> tuple[str, ...]:
        took = units.took(one.started_at, one.ended_at)
        why = " ".join((one.error_message or "").split())
        return one.id, one.status.value, tables.happened(one.started_at), took, one.worker_id, one.task_id, why

    tables.table(RUN_COLUMNS, map(row, reply.runs), empty="no run yet")
    if reply.more:
        tables.line(f"more: `membridge task runs --before {reply.runs[-1].id}`")


def _spec(prompt: str, form: str, timeout: int, budget: int, given: dict[str, object]) -> TaskSpec:
    if prompt == "-":
        prompt = sys.stdin.read()
    elif prompt.startswith("@"):
        try:
            prompt = Path(prompt[1:]).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidRequestError(
                f"cannot read the prompt from {prompt[1:]}: {getattr(error, 'strerror', None) or error}", field="prompt"
            ) from error
    if given["not_before"] is not None:
        given = {**given, "not_before": _instant(str(given["not_before"]))}
    if (size := len(prompt.encode("utf-8", "replace"))) > MOST_PROMPT:
        raise TooLargeError(
            f"the prompt has {size:,} bytes, at most {MOST_PROMPT:,} are allowed",
            remedy="shorten it, or name files for the worker to read: `--hint FILE`",
            field="prompt",
        )
    fields = {
        **given, "prompt": prompt, "desired_format": OutputFormat(form).value, "context_hints": given["hints"],
        "policy": {"timeout_sec": timeout, "budget": budget}, "max_attempts": given["attempts"],
    }  # fmt: skip
    try:
        return convert({name: value for name, value in fields.items() if value is not None}, TaskSpec)
    except WireError as error:
        raise InvalidRequestError(str(error), field=error.field) from error


def _instant(text: str) -> str:
    try:
        return units.given(text)
    except ValueError as error:
        raise click.BadParameter(
            f"{text!r} is not a time: write it as 2026-01-31T18:00.", param_hint="--not-before"
        ) from error


async def _submit(invocation: Invocation, spec: TaskSpec) -> Task:
    from membridge.cli.asking import runtime_bus  # noqa: PLC0415 - the bus is loaded only where it is used
    from membridge.cli.following import submit_once  # noqa: PLC0415 - as above

    async with runtime_bus(invocation) as bus:
        return await submit_once(bus, spec)


async def _submit_and_follow(invocation: Invocation, spec: TaskSpec) -> ResultReply:
    from membridge.cli.asking import of_runtime, runtime_bus  # noqa: PLC0415 - the bus is loaded only where it is used
    from membridge.cli.following import follow_task, submit_once  # noqa: PLC0415 - as above

    quiet = invocation.as_json
    async with runtime_bus(invocation) as bus:
        submitted = await submit_once(bus, spec)
        await follow_task(bus, submitted.id, _ignore if quiet else _print_event, _ignore if quiet else _say)
        return await of_runtime(bus, subjects.RESULT, TaskRequest(id=submitted.id))


async def _logs(invocation: Invocation, task_id: str, *, follow: bool) -> None:
    from membridge.cli.asking import of_runtime, runtime_bus  # noqa: PLC0415 - the bus is loaded only where it is used
    from membridge.cli.following import follow_task  # noqa: PLC0415 - as above

    tell = _print_json if invocation.as_json else _print_event
    async with runtime_bus(invocation) as bus:
        if follow:
            await follow_task(bus, task_id, tell, _say)
            return
        start: int | None = 1
        while start is not None:
            page = await of_runtime(bus, subjects.EVENTS, EventsRequest(id=task_id, start=start))
            for event in page.events:
                tell(event)
            start = page.next_start


def _ignore(_: object) -> None:
    """Say nothing: the one document that is printed is the result."""


def _say(text: str) -> None:
    click.echo(text, err=True)


def _print_json(event: TaskEvent) -> None:
    """Print an event as one line of JSON."""
    click.echo(encode(event))


def _print_event(event: TaskEvent) -> None:
    said = event.status.value if event.status is not None else ""
    text = " ".join(part for part in (said, event.text) if part)
    kind = "" if event.kind is TaskEventKind.STATUS else f"{event.kind.value}: "
    click.echo(f"{units.when(event.at)} {kind}{text}", err=True)


def _conclude(invocation: Invocation, reply: ResultReply) -> None:
    """Print an output, or say why there is none."""

    def print_result(reply: ResultReply) -> None:
        artifact = reply.artifact
        output = reply.result.output if reply.result is not None else None
        if output is None and artifact is not None:
            output = artifact.content
            if artifact.next_offset is not None:
                click.echo(f"this is the beginning; the whole is `membridge artifact get {artifact.id}`", err=True)
        if output is not None:
            click.echo(output)

    if reply.task.status in {TaskStatus.QUEUED, TaskStatus.LEASED, TaskStatus.RUNNING}:
        raise RefusedError(
            f"task {reply.task.id} has no result yet: it is {reply.task.status.value}",
            remedy=f"to follow it run `membridge task logs -f {reply.task.id}`",
        )
    if reply.task.status is not TaskStatus.COMPLETED:
        failed = reply.result.error_message if reply.result is not None else None
        why = failed or reply.task.reason
        raise RefusedError(
            f"task {reply.task.id} is {reply.task.status.value}{': ' + why if why else ''}",
            remedy=f"to see its attempts run `membridge task runs --task {reply.task.id}`",
        )
    invocation.show(reply, print_result)
