"""The contract of a service: all that the rest of Membridge knows about one.

A package declares a `Service` in its entry-point group `membridge.services`. The command line, `membridge up`,
`doctor`, the systemd units, the accounts of nats-server and the settings derive from the declaration. The class is here
because membridge never imports `services`. Every process imports the module that declares a service, so that module
imports the service's own code only inside functions.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from membridge.aio.backoff import kept_running
from membridge.aio.lifecycle import Part, Ready, awaited_for
from membridge.errors import MembridgeError, SettingsError
from membridge.settings import DEFAULT, Settings
from membridge.settings.services import discover
from membridge.system.logging import get_logger
from membridge.wiring.nats_permissions import NOTHING, Permissions
from schemas import buckets, streams
from schemas.buckets import Bucket
from schemas.node import Empty
from schemas.streams import Stream
from schemas.subjects import Operation
from schemas.wire import Wire

#: Seconds for which the parts of `up` after a service wait for it.
PATIENCE = 30.0


@dataclass(frozen=True, slots=True)
class Migrations:
    """A service's version line: the folder of its Alembic steps, numbered from the oldest."""

    service: str
    folder: Path
    #: The table with the newest step that the database has; `alembic_version_<service>` if empty.
    version_table: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebOptions:
    """Where a service answers HTTP, and as which host."""

    #: `ADDRESS:PORT`.
    listen: str
    #: Names that it may be asked by, beside `localhost` and the address itself.
    hosts: tuple[str, ...] = ()
    #: Origins of pages elsewhere that may use it.
    origins: tuple[str, ...] = ()
    #: Whether a proxy in front of it speaks TLS for it.
    behind_tls: bool = False
    #: Requests of one caller in a second, 0 for any number.
    reads_per_second: int = 50
    writes_per_second: int = 20
    #: The folder of the pages that a browser gets, if there are any.
    pages: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A service. `name` also names its settings group, its command, its unit, its part of `up` and its NATS user.

    `summary` completes "Run …". `part` serves until cancelled; an error means that it could not start or continue.
    """

    name: str
    summary: str
    settings: type
    #: Whether `membridge up` starts it.
    enabled: Callable[[Settings], bool]
    part: Callable[[Settings, Ready], Awaitable[None]]
    #: The operations that it answers; nodes and front ends may request them.
    operations: tuple[Operation[Wire, Wire], ...] = ()
    #: Further subjects that it publishes and subscribes to, beside its operations, streams and buckets.
    permissions: Permissions = NOTHING
    #: Its address, if it answers HTTP: `services.web.service.served` does the rest but its routes.
    web: Callable[[Settings], WebOptions] | None = None
    #: The streams and buckets that only it reads and writes.
    streams: tuple[Stream, ...] = ()
    buckets: tuple[Bucket[Wire], ...] = ()
    #: Whether it asks the nodes of each project too, as a gateway does: it has a key for each project's account.
    in_projects: bool = False
    #: Whether it uses the object store in NATS, in a bucket of its own: there snapshots are too without an S3.
    objects: bool = False
    #: The migrations of its tables, if it has any.
    migrations: Migrations | None = None
    #: Whether its own process returns freed memory at once: one that is idle for months, not one that computes.
    lean: bool = False
    #: Its line in the overview of `up`.
    overview: Callable[[Settings], str] = lambda _: "runs"
    #: A request that only reads; `membridge doctor` sends it if the service is enabled.
    probe: Operation[Empty, Wire] | None = None

    @property
    def all_streams(self) -> tuple[Stream, ...]:
        """Its streams, and those that services which answer HTTP share."""
        return self.streams if self.web is None else (*self.streams, *streams.WEB)

    @property
    def all_buckets(self) -> tuple[Bucket[Wire], ...]:
        """Its buckets, and those that services which answer HTTP share."""
        return self.buckets if self.web is None else (*self.buckets, *buckets.WEB)

    def described(self, settings: Settings) -> str:
        """Return its line in the overview of `up`: what it does, and its address where it answers HTTP."""
        does = self.overview(settings)
        return does if self.web is None else f"{does} at http://{self.web(settings).listen}"

    def chosen(self, settings: Settings) -> bool:
        """Whether the settings themselves enable it, rather than its default.

        A unit is written for such a one, and without it the doctor fails.
        """
        return self.enabled(settings) and settings.origins.get(f"{self.name}.enabled") != DEFAULT

    @property
    def unit(self) -> str:
        """The name of its systemd unit."""
        return f"membridge-{self.name}.service"

    @property
    def logger(self) -> str:
        """The name of its logger."""
        return ".".join(("membridge", self.name))


def installed() -> list[Service]:
    """Return the installed services, in the order of their names. Blocking."""
    found = discover().services
    return [service for name in sorted(found) if isinstance(service := found[name], Service)]


def supervised(service: Service, settings: Settings) -> Part:
    """Return the part of `up` that runs a service: it logs a failure and tries again, while other parts go on.

    They do not wait for one that takes long to start either. Only wrong settings end it: SettingsError.
    """
    log = get_logger(service.logger)
    not_running, not_ready = f"{service.name} not running", f"{service.name} not ready"

    async def run(ready: Ready) -> None:
        def failed(failure: Exception, pause: float) -> None:
            if isinstance(failure, SettingsError):
                raise failure
            log.error(
                not_running,
                reason=failure.message if isinstance(failure, MembridgeError) else repr(failure),
                remedy=failure.remedy if isinstance(failure, MembridgeError) else "",
                in_seconds=round(pause, 1),
            )
            # The parts after it must not wait for it.
            ready()

        await kept_running(partial(service.part, settings, ready), name=service.name, on_failure=failed)

    def late() -> None:
        log.warning(not_ready, seconds=PATIENCE)

    return awaited_for(PATIENCE, run, late=late)
