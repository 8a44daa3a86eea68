"""One attempt at a task: prepares the context, runs the `claude` program, interprets its answer.

Every failure of the program becomes an error result with one clear message; only cancellation raises.
"""

import json
import os
import re
import shlex
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec

from membridge.aio import threads
from membridge.aio.deadline import Deadline
from membridge.errors import MembridgeError
from membridge.worker import context, process
from membridge.worker.context import Sources
from membridge.worker.process import ExceededLimit, Program, ProgramResult
from membridge.worker.worker import AttemptResult
from schemas.leases import Order
from schemas.results import Metrics, ResultStatus
from schemas.task_events import TaskEventKind
from schemas.tasks import OutputFormat
from schemas.wire import storable

#: Seconds that preparing a context may take, and asking the program for its version.
PREPARE, VERSION = 30.0, 10.0
#: Characters of an error message.
MESSAGE = 4_000
_FENCED = re.compile(r"\A\s*```(?:json)?\s*\n(.*)\n\s*```\s*\Z", re.DOTALL)
_UNKNOWN_SESSION = re.compile(r"no conversation found|session.*not found", re.IGNORECASE)

Tell = Callable[[Order, TaskEventKind, str], None]


class _Usage(msgspec.Struct):
    input_tokens: int = 0
    output_tokens: int = 0
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None


class _Answer(msgspec.Struct):
    """What `claude -p --output-format json` prints (Claude Code 2, field `type` is `result`)."""

    result: str
    is_error: bool = False
    session_id: str | None = None
    usage: _Usage | None = None


@dataclass(frozen=True, slots=True)
class Claude:
    """How attempts are made on this node."""

    binary: str
    arguments: tuple[str, ...]
    sources: Sources
    max_output: int
    tell: Tell

    async def attempt(self, order: Order) -> AttemptResult:
        """Make one attempt."""
        began, task = time.monotonic(), order.task
        deadline = Deadline.after(PREPARE)
        try:
            found = await threads.run(
                context.prepare, task.context_hints, self.sources, budget=task.policy.budget, deadline=deadline
            )
        except MembridgeError as error:
            return _error(f"the context could not be prepared: {error.message}", began)
        for note in found.notes:
            self.tell(order, TaskEventKind.PROGRESS, f"not available: {note}")
        self.tell(order, TaskEventKind.PROGRESS, f"context of {len(found.pieces)} pieces, claude starts")
        # Names of files may contain bytes that are not UTF-8.
        text = storable(context.render(task.prompt, found))
        try:
            ended = await self._run(order, text, order.resumes)
            if order.resumes and ended.code and any(_UNKNOWN_SESSION.search(line) for line in _said(ended)):
                self.tell(order, TaskEventKind.PROGRESS, "its session is gone, claude starts a new one")
                ended = await self._run(order, text, None)
        except OSError as error:
            return _error(f"{self.binary} cannot be run: {error.strerror or error}", began)
        return _outcome(order, ended, began)

    async def _run(self, order: Order, text: str, session: str | None) -> ProgramResult:
        resume = ("--resume", session) if session else ()
        program = Program(
            command=(self.binary, "-p", "--output-format", "json", *self.arguments, *resume),
            folder=self.sources.root,
            environment=process.allowed(os.environ),
            seconds=float(order.task.policy.timeout_sec),
            max_output=self.max_output,
        )
        return await process.run(program, text, line=lambda line: self.tell(order, TaskEventKind.STDERR, line))


def split(arguments: str | None) -> tuple[str, ...]:
    """Return a line of arguments as a shell would split it. Raises ValueError."""
    return tuple(shlex.split(arguments or ""))


async def find_claude(wanted: str) -> tuple[str, str] | None:
    """Return the program's path and version; None when it is missing or does not answer."""
    path = shutil.which(wanted)
    if path is None:
        return None
    program = Program((path, "--version"), Path("/"), process.allowed(os.environ), VERSION, 4_096)
    try:
        ended = await process.run(program, "", line=lambda _: None)
    except OSError:
        return None
    if ended.code or ended.exceeded is not None:
        return None
    return path, ended.output.decode("utf-8", "replace").strip()


def _outcome(order: Order, ended: ProgramResult, began: float) -> AttemptResult:
    if ended.exceeded is ExceededLimit.TIME:
        return _error(f"claude took longer than {order.task.policy.timeout_sec} s, the task's timeout", began, ended)
    if ended.exceeded is ExceededLimit.OUTPUT:
        return _error("claude printed more than a result may have", began, ended)
    try:
        answer = _answer(ended.output)
    except (ValueError, RecursionError):
        how = f"was ended by signal {-ended.code}" if ended.code < 0 else f"exited with code {ended.code}"
        return _error(f"claude {how} and printed no result", began, ended)
    tokens = _tokens(answer.usage)
    metrics = Metrics(duration_ms=_milliseconds(began), tokens_used=tokens)
    if answer.is_error or ended.code:
        message = answer.result[:MESSAGE] or f"claude exited with code {ended.code}"
        return AttemptResult(ResultStatus.ERROR, metrics, error_message=message, session=answer.session_id)
    output = answer.result
    if order.task.desired_format is OutputFormat.JSON:
        fenced = _FENCED.match(output)
        output = fenced[1] if fenced else output
        try:
            json.loads(output, parse_constant=_no_constant)
        except ValueError as error:
            said = f"the output is not JSON ({error}): {output[:200]}"
            return AttemptResult(ResultStatus.ERROR, metrics, error_message=said, session=answer.session_id)
    return AttemptResult(ResultStatus.SUCCESS, metrics, output=output, session=answer.session_id)


def _answer(output: bytes) -> _Answer:
    """Return the program's answer; bytes that are not UTF-8 and lone surrogates are replaced, the rest is kept.

    Raises ValueError when this is not an answer.
    """
    try:
        return msgspec.json.decode(output.strip(), type=_Answer)
    except (msgspec.DecodeError, UnicodeDecodeError):
        # JavaScript may cut a text inside a surrogate pair and print the half as an escape, which msgspec rejects.
        return msgspec.convert(json.loads(output.decode("utf-8", "replace")), _Answer)


def _error(message: str, began: float, ended: ProgramResult | None = None) -> AttemptResult:
    lines = "\n".join(ended.errors) if ended is not None else ""
    whole = f"{message}\n{lines}" if lines else message
    return AttemptResult(ResultStatus.ERROR, Metrics(duration_ms=_milliseconds(began)), error_message=whole[:MESSAGE])


def _said(ended: ProgramResult) -> list[str]:
    return [*ended.errors, ended.output[:MESSAGE].decode("utf-8", "replace")]


def _tokens(usage: _Usage | None) -> int | None:
    if usage is None:
        return None
    cached = (usage.cache_creation_input_tokens or 0) + (usage.cache_read_input_tokens or 0)
    return usage.input_tokens + usage.output_tokens + cached


def _milliseconds(began: float) -> int:
    return max(0, round((time.monotonic() - began) * 1000))


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
