"""What a command asks: this machine's daemon, or this process where none runs; another daemon; the task runtime.

Each function loads the bus when it is called, so that `--help` is quick.
"""

from typing import TypeVar

from membridge.cli.command import Invocation
from schemas.node import DoctorReply, Job, JobsReply, NodesReply
from schemas.subjects import Operation
from schemas.wire import Wire

Q = TypeVar("Q", bound=Wire)
R = TypeVar("R", bound=Wire)


def ask(invocation: Invocation, operation: Operation[Q, R], request: Q, *, node: str | None = None) -> R:
    """Return the reply of this machine's daemon, or of this process where none runs; with `node`, of that daemon."""
    from membridge.cli import asking  # noqa: PLC0415 - see above

    if node is None:
        return asking.ask(invocation, operation, request)
    return asking.ask_node(invocation, operation, request, node)


def ask_daemon(invocation: Invocation, operation: Operation[Q, R], request: Q, **tokens: str) -> R:
    """Return the daemon's reply; `tokens` fill the operation's subject. Raises NoResponderError when none runs."""
    from membridge.cli import asking  # noqa: PLC0415 - see above

    return asking.ask_daemon(invocation, operation, request, **tokens)


def ask_runtime(invocation: Invocation, operation: Operation[Q, R], request: Q) -> R:
    """Return a coordinator's reply. Raises NoResponderError when none runs."""
    from membridge.cli import asking  # noqa: PLC0415 - see above

    return asking.ask_runtime(invocation, operation, request)


def examine(invocation: Invocation, node: str | None) -> DoctorReply:
    """Return what the doctor of a daemon finds, or of this process where no daemon of this machine answers."""
    from membridge.cli import asking  # noqa: PLC0415 - see above

    return asking.examine(invocation, node)


def present_nodes(invocation: Invocation) -> NodesReply:
    """Return the nodes that are present now, and which of their projects have no primary."""
    from membridge.cli import asking  # noqa: PLC0415 - see above

    return asking.present_nodes(invocation)


def jobs(invocation: Invocation) -> JobsReply:
    """Return the newest jobs of the project; no daemon is needed for that."""
    from membridge.cli import asking  # noqa: PLC0415 - see above

    return asking.ask_jobs(invocation)


def job(invocation: Invocation, job_id: str) -> Job:
    """Return one job by its id, or by the end of it as `membridge jobs` shows it. Raises NotFoundError."""
    from membridge.cli import asking  # noqa: PLC0415 - see above

    return asking.ask_job(invocation, job_id)
