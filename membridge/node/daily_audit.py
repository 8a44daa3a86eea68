"""Compares everything once a day, a slice at a time while nothing else is to be done: `merge.audit` says how.

A slice takes 50 ms, the pause after it nine times as long, and longer on a busy machine. The thread keeps its priority:
one of a low priority holds the interpreter's lock and the project's while others have the processors, and the whole
node waits with it.
"""

import asyncio
import os
import time

from membridge.aio.backoff import jittered, pause_after
from membridge.errors import MembridgeError
from membridge.merge.audit import AuditNote
from membridge.node import rules
from membridge.node.project import Project
from membridge.system import clock
from membridge.system.logging import get_logger
from membridge.system.problem import Problem

log = get_logger("membridge.autosync")

#: Seconds until it is asked again whether an audit is due, or whether there is nothing else to do.
ASK_AGAIN, IDLE_AGAIN = 300.0, 5.0
#: Seconds without a change after which the database counts as idle.
QUIET = 10.0
#: The shortest pause between two slices, and how much longer than the slice a pause is; on a busy machine ten times.
PAUSE, PAUSES, BUSY = 0.25, 9.0, 10.0


class DailyAudit:
    """The audits of one project."""

    def __init__(self, project: Project) -> None:
        self._project = project
        self._failures, self._missed = 0, 0
        self._problem = Problem(log, "rows not audited", level="info")

    async def run(self) -> None:
        """Audit whenever it is due until cancelled."""
        while True:
            pause = await self._turn()
            await asyncio.sleep(pause)

    async def _turn(self) -> float:
        """Compare a slice if one is due and nothing else is to be done; return the seconds to wait then."""
        try:
            note, began = await self._project.audited(), time.monotonic()
            if not note.is_under_way and not _is_due(note):
                return jittered(ASK_AGAIN)
            if self._project.busy or not (self._project.figures.quiet_for() >= QUIET or _is_overdue(note)):
                return IDLE_AGAIN
            found = await self._project.audit_slice()
        except MembridgeError as error:
            self._failures += 1
            self._problem.failed(error)
            return pause_after(self._failures, first=IDLE_AGAIN, most=ASK_AGAIN)
        self._failures = 0
        self._problem.over()
        if found is None:
            return IDLE_AGAIN
        if found.missed:
            self._missed += found.missed
            # What was missed is found from now on; that it was missed is a defect.
            log.error("rows had been missed", rows=found.missed, remedy="please report it with this node's log")
        if found.is_last:
            log.info("all rows compared", missed=self._missed, restarts=note.restarts)
            self._missed = 0
        pause = max(PAUSE, PAUSES * (time.monotonic() - began))
        return pause * BUSY if _is_machine_busy() else pause


def _is_due(note: AuditNote) -> bool:
    last = clock.known(note.ended_at or note.since)
    return last is None or rules.is_daily_due(last.timestamp(), clock.now().timestamp())


def _is_overdue(note: AuditNote) -> bool:
    """Whether the database was not idle for a day after an audit was due: it waits no longer for a quiet moment."""
    last = clock.known(note.ended_at or note.since)
    return last is not None and rules.is_daily_due(last.timestamp() + rules.A_DAY, clock.now().timestamp())


def _is_machine_busy() -> bool:
    return os.getloadavg()[0] > (os.cpu_count() or 1)
