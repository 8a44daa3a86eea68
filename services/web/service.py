"""The composition: access, streams, and the routes that every service answers. A service adds its own routes."""

from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from membridge.aio.deadline import Deadline
from membridge.aio.tasks import background
from membridge.bus.connection import Bus
from membridge.bus.kv import Kv
from membridge.settings import Settings
from membridge.settings.kinds import address_and_port
from membridge.system.logging import get_logger
from membridge.wiring.service import Service
from schemas import buckets
from services.web import docs_page, health, keys, openapi, pages, sessions
from services.web.app import Kit, make_app
from services.web.audit import stream_audit
from services.web.auth import ISSUED_ONLY, RATES, Admission, Gate, Rates, rates_of
from services.web.broadcast import broadcasting
from services.web.health import Check
from services.web.key_uses import KeyUses
from services.web.keys import HeaderKey, Keyring
from services.web.limits import Flights
from services.web.metrics import Metrics
from services.web.origins import Origins
from services.web.routes import Call, Endpoint, Method, Permission, Route
from services.web.sealing import SealingKeys
from services.web.server import Listening, serve
from services.web.sessions import Sessions
from services.web.streaming import Streams

__all__ = [
    "Access", "Admission", "Call", "Endpoint", "HeaderKey", "Method", "Permission", "Route", "admitting", "served",
]  # fmt: skip

log = get_logger("membridge.web")

#: Requests that are answered at once.
AT_ONCE = 256
#: Seconds to read keys and sessions for the first time.
OPEN = 10.0


@dataclass(frozen=True, slots=True)
class Access:
    """Access: keys and sessions, the pages that may use the server, and the guard over all of them."""

    keyring: Keyring
    sessions: Sessions
    origins: Origins
    gate: Gate
    uses: KeyUses

    def endpoints(self) -> list[Endpoint]:
        """Return the routes by which administrators manage keys, and browsers log in."""
        return [*keys.endpoints(self.keyring, self.uses), *sessions.endpoints(self.sessions)]


@asynccontextmanager
async def admitting(
    bus: Bus,
    *,
    hosts: Collection[str] = (),
    pages: Collection[str] = (),
    behind_tls: bool = False,
    rates: Rates = RATES,
    admission: Admission = ISSUED_ONLY,
) -> AsyncGenerator[Access]:
    """Keep keys and sessions current during the body. Errors: those of the bus.

    `hosts` are further names of this server, `pages` the origins of pages elsewhere that may use it.
    """
    keyring, sealing = Keyring(Kv(bus, buckets.API_KEYS)), SealingKeys(Kv(bus, buckets.SESSION_SECRET))
    ended = Kv(bus, buckets.ENDED_SESSIONS)
    live = Sessions(sealing, keyring, ended, behind_tls=behind_tls, given=admission.keys)
    await sealing.agree(Deadline.after(OPEN))
    uses = KeyUses(Kv(bus, buckets.API_KEY_USES))
    await keyring.refresh()
    await live.refresh()
    async with background() as group:
        group.create_task(keyring.run(_unheard), name="keys")
        group.create_task(live.run(_unheard), name="sessions")
        group.create_task(sealing.run(_unheard), name="sealing keys")
        group.create_task(uses.run(_unheard), name="uses of keys")
        headers = [key.header for key in admission.keys if key.logs_in]
        origins = Origins(hosts=hosts, allowed=pages, key_headers=headers)
        gate = Gate(keyring, live, origins=origins, rates=rates, admission=admission, used=uses.note)
        yield Access(keyring, live, origins, gate, uses)


@asynccontextmanager
async def served(
    service: Service,
    settings: Settings,
    bus: Bus,
    endpoints: Sequence[Endpoint],
    *,
    checks: Mapping[str, Check] | None = None,
    admission: Admission = ISSUED_ONLY,
) -> AsyncGenerator[tuple[str, int]]:
    """Answer `endpoints` over HTTP during the body, which gets host and port; `/ready` makes `checks` too.

    `admission` says which callers are admitted beside those with an issued key.

    When the body ends, running requests end first: `bus` must outlive it. Errors: those of the bus; UnavailableError
    when the address is taken.
    """
    if service.web is None:
        raise LookupError(f"{service.name} declares no address")
    web = service.web(settings)
    host, port = address_and_port(web.listen)
    flights = Flights(AT_ONCE)
    metrics = Metrics(flights)
    async with (
        admitting(
            bus,
            hosts={one.lower() for one in (host, *web.hosts)},
            pages=web.origins,
            behind_tls=web.behind_tls,
            rates=rates_of(web.reads_per_second, web.writes_per_second),
            admission=admission,
        ) as access,
        broadcasting() as broadcast,
        background() as group,
    ):
        streams = Streams(broadcast, access.gate.recheck, flights, metrics)
        access.gate.listen(streams.recheck)
        needed = {"keys": access.keyring.check, **(checks or {})}
        every = [*endpoints, *access.endpoints(), *health.endpoints(needed, metrics, flights)]
        every.append(docs_page.endpoint([one.route for one in every], f"Membridge: {service.summary}"))
        every.append(openapi.endpoint([one.route for one in every], f"Membridge: {service.summary}"))
        app = make_app(every, Kit(access.gate, stream_audit(bus, group), metrics, flights, streams, access.origins))
        if web.pages is not None:
            pages.add_to(app, web.pages, access.origins.check_host)
        async with serve(app, flights, Listening(host, port)) as (host, port):
            log.info("listening", address=f"http://{host}:{port}")
            yield host, port


def _unheard() -> None:
    """Ignore that a copy is current: it was read before."""
