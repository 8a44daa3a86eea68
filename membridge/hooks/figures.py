"""How the spool stands: what waits, what was set aside, what was dropped. Blocking, and never fails."""

import os
from pathlib import Path
from typing import NamedTuple

from membridge.hooks.paths import HookPaths


class SpoolFigures(NamedTuple):
    """How many events wait, how many files were damaged and are kept, how many events were dropped unpublished."""

    waiting: int = 0
    damaged: int = 0
    dropped: int = 0


def figures(paths: HookPaths) -> SpoolFigures:
    """Return how the spool stands; nothing but zeros where there is none."""
    return SpoolFigures(_count(paths.new), _count(paths.damaged), dropped_of(paths))


def dropped_of(paths: HookPaths) -> int:
    """Return how many events were dropped since the file that counts them was removed last."""
    try:
        return int(paths.dropped.read_bytes())
    except (OSError, ValueError):
        return 0


def _count(folder: Path) -> int:
    try:
        with os.scandir(folder) as entries:
            return sum(1 for _ in entries)
    except OSError:
        return 0
