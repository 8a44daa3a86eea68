"""The answer to a session start's question, in time whatever the work does: what its hook prints for Claude Code."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from membridge.hooks.event_file import DamagedEventError, HookEvent, parse
from membridge.system.logging import get_logger
from schemas.hooks import HookOutput, SessionStartOutput
from schemas.wire import encode

log = get_logger("membridge.hooks")


@dataclass(frozen=True, slots=True)
class Answering:
    """What answers a session start: `answer` does the work, `late` stands in for it after `patience` seconds.

    Both return what the session is told, nothing if there is nothing to tell.
    """

    answer: Callable[[HookEvent], Awaitable[str]]
    late: Callable[[], str]
    patience: float


async def answer(content: bytes, group: asyncio.TaskGroup, answering: Answering, free: Callable[[], None]) -> bytes:
    """Return what the hook prints; call `free` when nothing of the work is left to do.

    Work that takes too long is cancelled and left to the `group`.
    """
    try:
        event = parse(content)
    except DamagedEventError as error:
        free()
        log.warning("question of a session start not answered", reason=str(error))
        return b""
    work = group.create_task(_worked(event, answering, free), name="session start's work")
    await asyncio.wait({work}, timeout=answering.patience)
    if work.done() and not work.cancelled():
        return printed(work.result())
    # Not awaited: what it waits for may be a thread that hangs.
    work.cancel()
    return printed(answering.late())


def printed(context: str) -> bytes:
    """Return what a hook prints to put `context` first into the session."""
    if not context:
        return b""
    return encode(HookOutput(hookSpecificOutput=SessionStartOutput(additionalContext=context))) + b"\n"


async def _worked(event: HookEvent, answering: Answering, free: Callable[[], None]) -> str:
    try:
        return await answering.answer(event)
    except Exception:
        log.exception("session start not answered")
        return ""
    finally:
        free()
