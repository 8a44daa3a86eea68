"""The gateway's composition: what one is made of, and the part that runs."""

import asyncio
import time

from membridge import __version__
from membridge.aio.deadline import Deadline
from membridge.aio.lifecycle import Ready
from membridge.aio.tasks import background
from membridge.bus.service import Endpoint as Answering
from membridge.bus.service import ServiceIdentity, serve
from membridge.settings import Settings
from membridge.system.memory import rarely_collected
from membridge.wiring.bus import project_buses, service_bus
from membridge.wiring.service import Service
from schemas import subjects
from schemas.buckets import AGENTS, FEDERATION, LAST_SEEN
from schemas.gateway_nats import GatewayStatus
from schemas.node import Empty
from services.gateway.callers import admission_of
from services.gateway.federation import Federated
from services.gateway.machines import watched
from services.gateway.projects import Projects, current, reached
from services.gateway.routes import Known, all_endpoints
from services.gateway.runtime import Runtime
from services.gateway.together import Together
from services.web.service import served

#: Seconds to connect, and then to make streams and buckets.
OPEN = 60.0


async def answer(service: Service, settings: Settings, ready: Ready) -> None:
    """Answer until cancelled. Errors: SettingsError, CredentialsError, UnavailableError, BusUnavailableError."""
    admission, deadline, name = admission_of(settings), Deadline.after(OPEN), f"membridge-{service.name}"
    async with (
        service_bus(service, settings, name, deadline=deadline) as bus,
        project_buses(service, settings, name, runtime=bus, deadline=deadline) as buses,
        background() as group,
        reached(buses) as projects,
        current(bus, AGENTS) as agents,
        current(bus, FEDERATION) as federation,
        current(bus, LAST_SEEN) as seen,
        watched(projects, seen) as machines,
        served(
            service,
            settings,
            bus,
            all_endpoints(
                Known(
                    settings, Together(group, Runtime(bus)), projects, Federated(settings, federation), agents, machines
                )
            ),
            checks={"projects": projects.check},
            admission=admission,
        ) as (host, port),
        serve(bus, ServiceIdentity(name, __version__, service.summary), [_status(f"{host}:{port}", projects)]),
    ):
        rarely_collected()
        ready()
        await asyncio.Event().wait()


def _status(address: str, projects: Projects) -> Answering:
    began = time.monotonic()

    async def status(_: Empty, __: object) -> GatewayStatus:
        return GatewayStatus(
            address=f"http://{address}", projects=len(projects.names()), uptime_seconds=time.monotonic() - began
        )

    one = subjects.GATEWAY_STATUS
    return Answering(operation=one, subject=one.pattern(), handler=status, queue=subjects.GATEWAY)
