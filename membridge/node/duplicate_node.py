"""Detect two machines with one node id: a copied disk or SD card copies the id and everything else.

The boot id cannot be copied. A node that finds another machine under its name does not start; one that meets it later
stops. Nothing is lost: each keeps its own database.
"""

import asyncio
import hashlib
import uuid
from pathlib import Path

from membridge.bus.kv import Entry, Kv
from membridge.bus.watch import watch
from membridge.errors import AlreadyRunningError
from membridge.system import clock
from schemas.identity import NodeId
from schemas.node import NodePresence

_BOOT = Path("/proc/sys/kernel/random/boot_id")
#: Seconds after which an entry that was not written again is a gone machine's: the bucket's TTL, and a bit.
GONE = 35.0


def instance_of(state_dir: Path) -> str:
    """Return what this node's process has in common with its own restarts only: this boot, and this state folder."""
    try:
        boot = _BOOT.read_text("ascii").strip()
    except OSError:
        # No Linux: then the machine's network address.
        boot = str(uuid.getnode())
    state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    place = state_dir.stat()
    return hashlib.sha256(f"{boot} {place.st_dev} {place.st_ino}".encode()).hexdigest()[:16]


async def check_alone(nodes: Kv[NodePresence], node: NodeId, instance: str) -> None:
    """Return when no other machine is present under this name; raise AlreadyRunningError when one is.

    An entry that another machine left is waited for, half a minute at most: written again it is alive, gone it was not.
    """
    first: Entry[NodePresence] | None = None
    try:
        async with asyncio.timeout(GONE):
            async for change in watch(nodes, node):
                entry = change.entry
                if entry is None or entry.value.instance in {"", instance}:
                    return
                if first is not None:
                    raise another(entry.value)
                first = entry
    except TimeoutError:
        return


def another(found: NodePresence) -> AlreadyRunningError:
    """Return the error that says which machine has this name too."""
    where = ", ".join(found.addresses) or found.os
    return AlreadyRunningError(
        f"another machine is also called {found.node}: {where}, started {clock.local(found.started_at)}",
        remedy="give one of them another MEMBRIDGE_NODE_ID; a copied disk or SD card copies the name",
    )
