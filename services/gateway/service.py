"""The gateway as a service: what `membridge up`, the accounts of nats-server and the units know of it.

Every process reads this module. It imports the gateway itself only when it runs.
"""

from pathlib import Path

from membridge.aio.lifecycle import Ready
from membridge.settings import DEFAULT, Settings
from membridge.wiring.nats_permissions import Permissions
from membridge.wiring.service import Service, WebOptions
from schemas import buckets, streams, subjects
from services.gateway.settings import GatewaySettings

#: The files of the console.
CONSOLE = Path(__file__).with_name("console")


async def _part(settings: Settings, ready: Ready) -> None:
    from services.gateway import app  # noqa: PLC0415 - aiohttp is loaded only where HTTP is answered

    await app.answer(SERVICE, settings, ready)


def _web(settings: Settings) -> WebOptions:
    own = settings.of(GatewaySettings)
    return WebOptions(
        listen=own.listen,
        hosts=own.host_names(),
        origins=own.origins,
        behind_tls=own.behind_tls,
        reads_per_second=own.reads_per_second,
        writes_per_second=own.writes_per_second,
        pages=CONSOLE,
    )


def _enabled(settings: Settings) -> bool:
    """Whether this machine runs one: not by default where it joined the server of another one."""
    has_keys = settings.nats.keys_dir is None or settings.nats.listen is not None
    own = settings.of(GatewaySettings)
    return own.enabled and (has_keys or settings.origins["gateway.enabled"] != DEFAULT)


#: What it reads of the task runtime: events of tasks, and the bucket of task jobs as the stream that it is.
_READ = (streams.TASKS.name, f"KV_{buckets.TASK_JOBS.name}")

SERVICE = Service(
    name=subjects.GATEWAY,
    summary="a gateway for front ends",
    settings=GatewaySettings,
    enabled=_enabled,
    part=_part,
    operations=(subjects.GATEWAY_STATUS,),
    permissions=Permissions(
        publish=(
            *(operation.pattern() for operation in subjects.CLIENT_OPERATIONS),
            # For workers that reach it over HTTP; they prove themselves by the id of their lease.
            *(operation.pattern() for operation in subjects.REPORTING_OPERATIONS),
            # For administrators who invite machines from the console.
            *(operation.pattern() for operation in subjects.INVITING_OPERATIONS),
            *(f"$JS.API.STREAM.INFO.{one}" for one in _READ),
            *(f"$JS.API.DIRECT.GET.{one}{rest}" for one in _READ for rest in ("", ".>")),
        ),
        subscribe=(
            subjects.wildcard(subjects.TASK_EVENT),
            subjects.wildcard(subjects.WEB_AUDIT),
            f"$KV.{buckets.TASK_JOBS.name}.>",
        ),
    ),
    buckets=buckets.GATEWAY,
    in_projects=True,
    lean=True,
    web=_web,
    overview=lambda _: "the console, tasks and memory over HTTP",
    probe=subjects.GATEWAY_STATUS,
)
