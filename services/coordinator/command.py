"""`membridge coordinator`: a coordinator in the foreground. Several may run; one of them schedules."""

import asyncio

import uvloop

from membridge.cli.command import Invocation, command
from membridge.wiring.logs import start_logging
from schemas.subjects import Impact


@command("coordinator", impact=Impact.WRITE, warns=False)
def coordinator(invocation: Invocation) -> None:
    """Run a coordinator of LLM tasks until Ctrl-C."""
    from services.coordinator import app  # noqa: PLC0415 - SQLAlchemy is loaded only where tasks are kept

    start_logging(invocation.settings)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(app.run(invocation.settings))
