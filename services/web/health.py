"""Whether a process answers (`/health`), whether it can serve (`/ready`), and its counters (`/metrics`)."""

from collections.abc import Awaitable, Callable, Mapping

from membridge import __version__
from membridge.errors import MembridgeError, UnavailableError
from schemas.errors import ErrorCode
from schemas.node import Empty
from schemas.web import Health, Readiness, Role
from services.web.limits import Flights
from services.web.metrics import CONTENT_TYPE, Metrics
from services.web.routes import Call, Endpoint, Kind, Method, Permission, Route, Text

#: Checks one thing that the service needs; raises a MembridgeError when that is not available.
Check = Callable[[], Awaitable[None]]

HEALTH = Route("health", Method.GET, "/health", Empty, Health, "Whether the process answers.", None, deadline=2.0)
READY = Route(
    "ready",
    Method.GET,
    "/ready",
    Empty,
    Readiness,
    "Whether the service has what it needs and is not stopping.",
    None,
    deadline=5.0,
    errors=(ErrorCode.UNAVAILABLE,),
)
METRICS = Route(
    "metrics",
    Method.GET,
    "/metrics",
    Empty,
    Text,
    "The counters of the process, for Prometheus.",
    Permission("metrics", Role.READER),
    kind=Kind.TEXT,
    content_type=CONTENT_TYPE,
)


def endpoints(checks: Mapping[str, Check], metrics: Metrics, flights: Flights) -> list[Endpoint]:
    """Return the three routes over what a service checks."""

    async def health(_: Empty, __: Call) -> Health:
        return Health(status="ok", version=__version__)

    async def ready(_: Empty, __: Call) -> Readiness:
        if flights.draining:
            raise UnavailableError("not ready: the server is stopping")
        for name, check in checks.items():
            try:
                await check()
            except MembridgeError as error:
                raise UnavailableError(f"not ready: {name}: {error.message}", remedy=error.remedy) from error
        return Readiness(status="ready", checks=list(checks))

    async def render(_: Empty, __: Call) -> Text:
        return Text(body=metrics.render())

    return [HEALTH.bind(health), READY.bind(ready), METRICS.bind(render)]
