"""The routes of the gateway, by surface. Their paths, methods and field names never change.

Old clients use them.
"""

from dataclasses import dataclass

from membridge.settings import Settings
from schemas.gateway_nats import Agent
from services.gateway.federation import Federated
from services.gateway.machines import Machines
from services.gateway.projects import Projects
from services.gateway.routes import agent, control, events, invitations, membridge, projects, runtime
from services.gateway.routes import settings as settings_routes
from services.gateway.routes.control import Control
from services.gateway.runtime import Runtime
from services.gateway.together import Together
from services.web.mirror import Mirror
from services.web.routes import Endpoint


@dataclass(frozen=True, slots=True)
class Known:
    """What the routes answer from."""

    settings: Settings
    together: Together
    projects: Projects
    federated: Federated
    agents: Mirror[Agent]
    machines: Machines

    @property
    def tasks(self) -> Runtime:
        """What asks a coordinator."""
        return self.together.runtime

    def connections(self) -> dict[str, str]:
        """Return what the gateway is connected to, and how that is."""
        config = self.federated.config()
        server = {"server": config.connection or "unknown"} if config.server_url else {}
        return {"nats": "connected" if self.tasks.bus.connected else "disconnected", **server}


def all_endpoints(known: Known) -> list[Endpoint]:
    """Return every endpoint of the gateway."""
    plane = Control(known.settings, known.projects, known.agents)
    return [
        *runtime.endpoints(known.tasks, known.together, known.federated, known.connections),
        *membridge.endpoints(known.projects, known.federated, known.machines),
        *projects.endpoints(known.projects),
        *events.endpoints(known.tasks, known.projects),
        *invitations.endpoints(known.tasks),
        *settings_routes.endpoints(known.settings),
        *control.endpoints(plane),
        *agent.endpoints(plane),
    ]
