"""The old tool's short names: `cm-push` is `membridge push`, and so on."""

import sys

from membridge.cli.main import main


def cm_push() -> int:
    """Run `membridge push`."""
    return main(["push", *sys.argv[1:]])


def cm_pull() -> int:
    """Run `membridge pull`."""
    return main(["pull", *sys.argv[1:]])


def cm_status() -> int:
    """Run `membridge status`."""
    return main(["status", *sys.argv[1:]])


def cm_doctor() -> int:
    """Run `membridge doctor`."""
    return main(["doctor", *sys.argv[1:]])
