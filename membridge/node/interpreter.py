"""Whether the Python of this process is still there: a distribution's upgrade may take it away under a daemon."""

import os
import sys
from pathlib import Path

from membridge.node.findings import fail
from schemas.node import Check


def gone(name: str) -> Check | None:
    """Return the line `name` for a Python that is gone, with the command that brings it back; else None."""
    if os.access(sys.executable, os.X_OK):
        return None
    detail = f"pid {os.getpid()} runs from {sys.executable}, which is gone: it cannot be started again"
    script = next((one for one in map(_script, Path(sys.prefix).resolve().parents) if one.is_file()), None)
    remedy = (
        f"run `sh {script} node --prefix {script.parent}`"
        if script
        else "install membridge again: docs/howto/install.md"
    )
    return fail(name, detail, remedy)


def _script(folder: Path) -> Path:
    """Return where the installer keeps a copy of itself, if `folder` is the one that it installed to."""
    return folder / "install.sh"
