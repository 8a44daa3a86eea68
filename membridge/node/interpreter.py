"""Whether the Python of this process is still there: a distribution's upgrade may take it away under a daemon."""

import os
import sys

from membridge.errors import MembridgeError
from membridge.node.findings import fail
from schemas.node import Check


def gone(name: str) -> Check | None:
    """Return the line `name` for a Python that is gone, with the command that brings it back; else None."""
    if os.access(sys.executable, os.X_OK):
        return None
    detail = f"pid {os.getpid()} runs from {sys.executable}, which is gone: it cannot be started again"
    line = _installer()
    return fail(name, detail, f"run `{line}`" if line else "install membridge again: docs/howto/install.md")


def _installer() -> str | None:
    """Return the line that makes this environment anew, None where our installer did not make it."""
    from membridge.system import receipt  # noqa: PLC0415 - an idle daemon needs none

    try:
        found = receipt.find()
    except MembridgeError:
        return None
    return found.line(found.role) if found is not None and found.script.is_file() else None
