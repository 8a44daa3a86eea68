"""Opens what a service declares, and answers its operations: its tables, connection, streams, buckets, endpoints.

The declaration itself, `Service`, is in `membridge.wiring.service`: what reads it there may not import this package.
"""

from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from membridge import __version__
from membridge.aio.deadline import Deadline
from membridge.bus.connection import Bus
from membridge.bus.service import Call, Endpoint, Handler, ServiceIdentity, serve
from membridge.settings import Settings
from membridge.wiring.bus import service_bus
from membridge.wiring.service import Service
from schemas.subjects import Operation
from schemas.wire import Wire
from services.database.engine import URL, Engine, open_engine, parse_url

__all__ = ["Call", "answered", "opened", "parse_url"]

#: Seconds to open the database, and then the streams and buckets.
OPEN = 60.0


@asynccontextmanager
async def opened(service: Service, settings: Settings, url: URL, name: str) -> AsyncGenerator[tuple[Engine, Bus]]:
    """Open the database at `url`, its tables up to date, and connect to NATS as the service; `name` is shown there.

    Errors: UnavailableError, CredentialsError, BusUnavailableError.
    """
    if service.migrations is None:
        raise LookupError(f"{service.name} declares no migrations")
    async with (
        open_engine(url, service.migrations, deadline=Deadline.after(OPEN)) as engine,
        service_bus(service, settings, name, deadline=Deadline.after(OPEN)) as bus,
    ):
        yield engine, bus


def answered(
    service: Service, bus: Bus, handlers: Mapping[Operation[Wire, Wire], Handler]
) -> AbstractAsyncContextManager[object]:
    """Answer operations during the body, each by its handler; several processes of one service share the requests."""
    identity = ServiceIdentity(f"membridge-{service.name}", __version__, service.summary)
    return serve(
        bus,
        identity,
        [
            Endpoint(operation=one, subject=one.pattern(), handler=handler, queue=service.name)
            for one, handler in handlers.items()
        ],
    )
