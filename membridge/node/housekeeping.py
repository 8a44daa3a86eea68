"""What a primary does once a day after a push: it deletes the snapshots that are no longer kept.

When it last did is a file in the project's folder, so that restarts do not count as days. A failure is logged and tried
again after the next push: nobody's memory depends on it.
"""

from pathlib import Path

from membridge.aio import threads
from membridge.errors import MembridgeError
from membridge.node import rules
from membridge.node.jobs import Jobs, JobSpec
from membridge.node.project import Project
from membridge.system import clock, files
from membridge.system.logging import get_logger
from schemas.commits import GcRequest
from schemas.leadership import Role

log = get_logger("membridge.housekeeping")


async def collect_daily(project: Project, jobs: Jobs) -> None:
    """Collect garbage when this node is primary and a day has passed; the first day begins now."""
    if project.roles.view().role is not Role.PRIMARY:
        return
    stamp, now = project.lane.folder / "collected", clock.now().timestamp()
    last = await threads.run(_read, stamp)
    if last is not None and not rules.collects_now(last, now):
        return
    try:
        if last is not None:
            reply = await jobs.run(
                JobSpec("gc", "auto-sync"),
                lambda progress, _: project.collect_garbage(GcRequest(), progress, deadline=project.deadline()),
            )
            log.info("garbage collected", deleted=reply.snapshots, bytes=reply.freed_bytes)
        await threads.run(files.save, stamp, str(now).encode())
    except MembridgeError as error:
        log.warning("garbage not collected", reason=error.message, remedy=error.remedy)


def _read(stamp: Path) -> float | None:
    try:
        return float(stamp.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        # Damaged: of an instant so long ago that a collection is due.
        return 0.0
