"""What the settings allow the operations of a project on this node."""

from dataclasses import dataclass
from pathlib import Path

from membridge.settings import Settings
from membridge.snapshot.push_lease import PushLeaseOptions


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the settings allow on this node."""

    push_lease: PushLeaseOptions
    timeout: float = 600.0
    allow_secondary_push: bool = False
    allow_primary_pull_override: bool = False
    dryrun: bool = False
    #: claude-mem's data folder when its worker may be stopped after a replacement.
    worker: Path | None = None


def bounds_of(settings: Settings) -> Bounds:
    """Return what the settings allow."""
    lane, leadership = settings.lane, settings.leadership
    return Bounds(
        push_lease=PushLeaseOptions(lane.lock_ttl_seconds, lane.stale_lock_grace_seconds, lane.force_push),
        timeout=lane.operation_timeout_seconds,
        allow_secondary_push=leadership.allow_secondary_push,
        allow_primary_pull_override=leadership.allow_primary_pull_override,
        dryrun=settings.claude_mem.dryrun,
        worker=settings.node.claude_mem_dir
        if settings.claude_mem.allow_process_control and not settings.claude_mem.no_restart
        else None,
    )
