"""This node's part for Claude Code's hooks. Nothing that fails here ends the node or a session.

An idle node loads what waits for the first event and the first session, and no more.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from membridge.aio import threads
from membridge.aio.backoff import kept_running
from membridge.aio.lifecycle import Part, Ready
from membridge.hooks.folder_watch import first_file
from membridge.hooks.paths import HookPaths, hook_paths, make_spool
from membridge.hooks.session_questions import serve
from membridge.node.projects_part import ProjectsPart
from membridge.settings import Settings
from membridge.system.logging import get_logger
from membridge.system.problem import Problem

if TYPE_CHECKING:
    from membridge.hooks.reader import SpoolReader
    from membridge.hooks.session_answer import Answering

log = get_logger("membridge.hooks")


def hooks_part(settings: Settings, environ: Mapping[str, str], hosts: Sequence[ProjectsPart]) -> Part:
    """Return the part that publishes the events of the hooks and answers a session start."""
    paths = hook_paths(settings.node.state_dir)
    events, starts = _Events(paths, settings, hosts), _Starts(settings, hosts)

    async def run(ready: Ready) -> None:
        ready()
        async with asyncio.TaskGroup() as group:
            group.create_task(_lasting("spool of session events", events.run), name="hook events")
            serving = partial(serve, paths, environ, starts.asked)
            group.create_task(_lasting("questions of session starts", serving), name="session starts")

    return run


class _Events:
    def __init__(self, paths: HookPaths, settings: Settings, hosts: Sequence[ProjectsPart]) -> None:
        self._paths, self._settings, self._hosts = paths, settings, hosts
        self._reader: SpoolReader | None = None

    async def run(self) -> None:
        await threads.run(make_spool, self._paths)
        await first_file(self._paths.new)
        if self._reader is None:
            from membridge.hooks.reader import SpoolReader  # noqa: PLC0415 - a machine may have no hooks
            from membridge.node.session_events import SessionEvents  # noqa: PLC0415 - as above

            self._reader = SpoolReader(self._paths, SessionEvents(self._settings, self._hosts))
        await self._reader.run()


class _Starts:
    def __init__(self, settings: Settings, hosts: Sequence[ProjectsPart]) -> None:
        self._settings, self._hosts = settings, hosts
        self._answering: Answering | None = None

    async def asked(self, content: bytes, group: asyncio.TaskGroup, free: Callable[[], None]) -> bytes:
        from membridge.hooks import session_answer  # noqa: PLC0415 - a machine may have no hooks

        if self._answering is None:
            from membridge.node.session_start import answering  # noqa: PLC0415 - as above

            self._answering = answering(self._settings, self._hosts)
        return await session_answer.answer(content, group, self._answering, free)


async def _lasting(name: str, act: Callable[[], Awaitable[None]]) -> None:
    problem = Problem(log, "hooks not served")

    def failed(failure: Exception, _pause: float) -> None:
        problem.failed(failure, name=name)

    await kept_running(act, name=name, on_failure=failed)
