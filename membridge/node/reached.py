"""What the doctor can reach of what a project needs, and how the daemon of this node is."""

import os
from collections.abc import Callable
from dataclasses import dataclass

from membridge.bus.connection import Bus
from membridge.errors import MembridgeError
from membridge.node.findings import ok, warn
from membridge.node.interpreter import gone
from membridge.objectstore.protocol import ObjectStore
from membridge.settings import Settings
from membridge.system import pidfile
from schemas.node import Check


@dataclass(frozen=True, slots=True)
class Reached:
    """What the doctor can reach: NATS and the object store, or the reason why each was not opened.

    `project` is why the project is not served, None when it is; `daemon` checks the daemon of this node.
    """

    bus: Bus | MembridgeError
    store: ObjectStore | MembridgeError
    project: MembridgeError | None
    daemon: Callable[[], Check]


def this_process() -> Check:
    """Return the daemon's line, from the daemon itself. Blocking."""
    return gone("daemon") or ok("daemon", f"pid {os.getpid()}")


def without_daemon(settings: Settings) -> Check:
    """Return the daemon's line, from a command that no daemon answered. Blocking."""
    pid = pidfile.holder(settings.node.state_dir, "node")
    if pid is None:
        return warn(
            "daemon", "no daemon runs: nothing is synchronised", "start it with `membridge up` or `membridge node`"
        )
    return warn("daemon", f"pid {pid} runs and did not answer", "read its log; it answers once it reaches NATS")
