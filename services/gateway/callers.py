"""Which callers the gateway admits: by the keys of its settings, and without one where it listens on loopback alone.

A key's scopes: `tasks` is the task runtime, `memory` the projects with their memory, `agent` what one machine does,
`access` who may join, `keys` the API keys themselves.
"""

import ipaddress

from membridge.errors import SettingsError
from membridge.settings import Settings
from membridge.settings.kinds import Secret, address_and_port
from membridge.system.logging import get_logger
from schemas.web import Role
from services.gateway.settings import GatewaySettings
from services.web.auth import Admission
from services.web.identity import ANYBODY, Identity
from services.web.keys import HeaderKey
from services.web.origins import LOOPBACK
from services.web.routes import AnyRoute, Permission

log = get_logger("membridge.gateway")

TASKS, MEMORY, AGENT, ACCESS = "tasks", "memory", "agent", "access"
#: Routes that an agent on this machine may use without a key.
OPEN_TO_AGENTS = frozenset({"register_project"})
#: Characters of a key below which it is reported: it can be guessed.
SHORTEST = 16

READ_TASKS, WRITE_TASKS = Permission(TASKS, Role.READER), Permission(TASKS, Role.OPERATOR)
READ_MEMORY, WRITE_MEMORY = Permission(MEMORY, Role.READER), Permission(MEMORY, Role.OPERATOR)
READ_AGENT, WRITE_AGENT = Permission(AGENT, Role.READER), Permission(AGENT, Role.OPERATOR)
#: Where `/api/membridge` is passed on to.
CONFIGURE = Permission(TASKS, Role.ADMIN)
#: Which machines may join.
INVITE = Permission(ACCESS, Role.ADMIN)
#: The old control plane: its clients show the key of administrators.
ADMINISTER = Permission("control", Role.ADMIN)

_REMEDY = (
    "send X-Runtime-API-Key, X-MEMBRIDGE-ADMIN or X-MEMBRIDGE-AGENT, or a key of `membridge api-key new` in "
    "`Authorization: Bearer KEY`"
)


def _known(name: str, role: Role, *scopes: str) -> Identity:
    return Identity(name, name.replace("_", " "), role, frozenset(scopes), issued=False)


RUNTIME_KEY = _known("runtime_key", Role.ADMIN, TASKS, MEMORY)
ADMIN_KEY = _known("admin_key", Role.ADMIN, "*")
AGENT_KEY = _known("agent_key", Role.OPERATOR, AGENT)
#: A caller without a key, where none is needed; an agent without one; and any caller with MEMBRIDGE_DEV.
OPEN = _known("open", Role.ADMIN, TASKS, MEMORY)
LOCAL_AGENT = _known("local_agent", Role.OPERATOR, AGENT)
DEV = _known("dev", Role.ADMIN, "*")


def admission_of(settings: Settings) -> Admission:
    """Return which callers are admitted. Raises SettingsError for MEMBRIDGE_DEV on an address that others reach."""
    own = settings.of(GatewaySettings)
    alone = _is_alone(own)
    if settings.node.dev:
        if not alone:
            raise SettingsError(
                f"MEMBRIDGE_DEV turns authentication off, and the gateway is reachable from elsewhere: {own.listen}",
                remedy="unset MEMBRIDGE_DEV, or have it listen at 127.0.0.1 without further host names",
                field="gateway.listen",
            )
        log.warning("authentication is off", reason="MEMBRIDGE_DEV=1: any program of this machine may do anything")
        return Admission(without_key=lambda _, __: DEV, remedy=_REMEDY)
    given = (
        ("gateway.runtime_key", "X-Runtime-API-Key", own.runtime_key, RUNTIME_KEY),
        ("gateway.admin_key", "X-MEMBRIDGE-ADMIN", own.admin_key, ADMIN_KEY),
        ("gateway.agent_key", "X-MEMBRIDGE-AGENT", own.agent_key, AGENT_KEY),
    )
    keys = tuple(
        HeaderKey.of(header, _revealed(name, key), identity, logs_in=identity is RUNTIME_KEY)
        for name, header, key, identity in given
        if key is not None
    )
    is_open = alone and own.runtime_key is None

    def without_key(route: AnyRoute, address: str) -> Identity:
        if alone and route.name in OPEN_TO_AGENTS and _is_loopback(address):
            return LOCAL_AGENT
        if is_open and route.permission is not None and OPEN.may(route.permission.scope, route.permission.role):
            return OPEN
        return ANYBODY

    return Admission(keys=keys, without_key=without_key, remedy=_REMEDY)


def _revealed(name: str, key: Secret) -> str:
    text = key.reveal()
    if len(text) < SHORTEST:
        log.warning("a key is short", name=name, remedy="set a longer one, such as `openssl rand -hex 24` prints")
    return text


def _is_alone(own: GatewaySettings) -> bool:
    """Whether only programs of this machine reach it. A proxy would make it reachable from elsewhere."""
    host, _ = address_and_port(own.listen)
    return (host in LOOPBACK or _is_loopback(host)) and not own.host_names() and not own.behind_tls


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
