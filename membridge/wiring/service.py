"""The contract of a service: all that the rest of Membridge knows of one.

A package declares a `Service` and lists it in its entry-point group `membridge.services`. The command line, `membridge
up`, `doctor`, the systemd units, the accounts of nats-server and the settings derive from the declaration. They belong
to membridge, which never imports `services`; that is why the class is here and not there. The module that declares a
service is imported by every process: it imports the service's own code only inside the functions it names.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from membridge.aio.backoff import kept_running
from membridge.aio.lifecycle import Part, Ready
from membridge.errors import MembridgeError, SettingsError
from membridge.settings import Settings
from membridge.settings.services import discover
from membridge.system.logging import get_logger
from membridge.wiring.nats_permissions import NOTHING, Permissions
from schemas.buckets import Bucket
from schemas.node import Empty
from schemas.streams import Stream
from schemas.subjects import Operation
from schemas.wire import Wire


@dataclass(frozen=True, slots=True)
class Migrations:
    """A service's version line: the folder of its Alembic steps, oldest first by their numbers."""

    service: str
    folder: Path
    #: The table that names the newest step the database has; `alembic_version_<service>` if empty.
    version_table: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A service. `name` also names its settings group, its command, its unit, its part of `up` and its NATS user.

    `summary` completes "Run …". `part` serves until cancelled; an error means that it could not begin or go on.
    """

    name: str
    summary: str
    settings: type
    #: Whether `membridge up` starts it.
    enabled: Callable[[Settings], bool]
    part: Callable[[Settings, Ready], Awaitable[None]]
    #: What it answers; nodes and front ends may ask for it.
    operations: tuple[Operation[Wire, Wire], ...] = ()
    #: What else it publishes and subscribes to. Its operations, streams and buckets need not be repeated.
    permissions: Permissions = NOTHING
    #: The streams and buckets that it alone reads and writes.
    streams: tuple[Stream, ...] = ()
    buckets: tuple[Bucket[Wire], ...] = ()
    #: Whether it reads and writes the object store in NATS, where snapshots are kept without an S3.
    objects: bool = False
    #: The steps that made its tables, if it has any.
    migrations: Migrations | None = None
    #: What the overview of `up` says of it.
    overview: Callable[[Settings], str] = lambda _: "runs"
    #: A question that only reads; `membridge doctor` asks it where the service is enabled.
    probe: Operation[Empty, Wire] | None = None

    @property
    def unit(self) -> str:
        """The name of its systemd unit."""
        return f"membridge-{self.name}.service"

    @property
    def logger(self) -> str:
        """The name of its logger."""
        return ".".join(("membridge", self.name))


def installed() -> list[Service]:
    """Return the services that are installed, in the order of their names. Blocking."""
    found = discover().services
    return [service for name in sorted(found) if isinstance(service := found[name], Service)]


def supervised(service: Service, settings: Settings) -> Part:
    """Return the part of `up` that runs a service: it reports a failure and tries again, and the others go on.

    Only wrong settings end it: SettingsError.
    """
    log, event = get_logger(service.logger), f"{service.name} not running"

    async def run(ready: Ready) -> None:
        def failed(failure: Exception, pause: float) -> None:
            if isinstance(failure, SettingsError):
                raise failure
            log.error(
                event,
                reason=failure.message if isinstance(failure, MembridgeError) else repr(failure),
                remedy=failure.remedy if isinstance(failure, MembridgeError) else "",
                in_seconds=round(pause, 1),
            )
            # What comes after it must not wait for it.
            ready()

        await kept_running(partial(service.part, settings, ready), name=service.name, on_failure=failed)

    return run
