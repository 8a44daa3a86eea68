"""The routes of the gateway, by surface. Their paths, methods and field names never change.

Old clients use them.
"""

from membridge.settings import Settings
from services.gateway.projects import Projects
from services.gateway.routes import runtime
from services.gateway.runtime import Runtime
from services.web.routes import Endpoint


def all_endpoints(settings: Settings, tasks: Runtime, projects: Projects) -> list[Endpoint]:
    """Return every endpoint of the gateway."""
    del settings

    def connections() -> dict[str, str]:
        return {"nats": "connected" if tasks.bus.connected else "disconnected"}

    del projects
    return [*runtime.endpoints(tasks, connections)]
