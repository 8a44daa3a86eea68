"""The doctor's line for each service that is enabled on this machine: it answers, or how to start it."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

from membridge.aio.deadline import Deadline
from membridge.bus.connection import connect
from membridge.bus.rpc import RpcClient
from membridge.errors import NoResponderError
from membridge.settings import Settings
from membridge.wiring.bus import runtime_options
from membridge.wiring.service import Service, installed
from schemas.node import Check, Empty, Finding
from schemas.subjects import Operation
from schemas.wire import Wire

#: Seconds to connect.
CONNECT = 5.0


def checks(settings: Settings) -> dict[str, Callable[[Deadline], Awaitable[Check]]]:
    """Return the check of each enabled service that has a probe. Blocking."""
    return {
        service.name: partial(_answers, service, service.probe, settings)
        for service in installed()
        if service.probe is not None and service.enabled(settings)
    }


async def _answers(service: Service, probe: Operation[Empty, Wire], settings: Settings, deadline: Deadline) -> Check:
    options = runtime_options(settings, f"membridge-doctor-{settings.node.id}")
    async with connect(options, deadline=deadline.sooner(CONNECT)) as bus:
        began = asyncio.get_running_loop().time()
        try:
            await RpcClient(bus).request(probe, Empty(), deadline=deadline)
        except NoResponderError as error:
            if not service.chosen(settings):
                return Check(
                    name=service.name,
                    finding=Finding.SKIPPED,
                    detail=f"no {service.name} answers",
                    remedy=f"`membridge up` starts one, and `membridge {service.name}` runs it alone",
                )
            raise NoResponderError(
                f"no {service.name} answers", remedy=f"start it with `membridge {service.name}`, or `membridge up`"
            ) from error
        elapsed = asyncio.get_running_loop().time() - began
    return Check(name=service.name, finding=Finding.OK, detail=f"answers within {elapsed * 1000:.1f} ms")
