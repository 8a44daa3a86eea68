"""The coordinator as a service: what `membridge up`, the accounts of nats-server and the units know of it.

Every process reads this module. It imports the coordinator itself only when it runs.
"""

from membridge.aio.lifecycle import Ready
from membridge.settings import Settings, mask_userinfo
from membridge.wiring.nats_permissions import Permissions
from membridge.wiring.service import Service
from schemas import buckets, streams, subjects
from schemas.task_events import TaskEventKind
from services.coordinator.settings import CoordinatorSettings
from services.coordinator.store.migrations import MIGRATIONS

_LEASES = f"KV_{buckets.LEASES.name}"
_PASSED_ON = subjects.wildcard(subjects.SCHEDULER)


async def _part(settings: Settings, ready: Ready) -> None:
    from services.coordinator import app  # noqa: PLC0415 - SQLAlchemy is loaded only where tasks are kept

    await app.coordinate(SERVICE, settings, ready)


def _overview(settings: Settings) -> str:
    url = settings.of(CoordinatorSettings).database_url
    if url is None:
        return "LLM tasks, kept in the state folder"
    return f"LLM tasks, kept in {mask_userinfo(url.reveal()).partition('?')[0]}"


SERVICE = Service(
    name=subjects.COORDINATOR,
    summary="a coordinator of LLM tasks",
    settings=CoordinatorSettings,
    enabled=lambda settings: settings.of(CoordinatorSettings).enabled,
    part=_part,
    operations=subjects.CLIENT_OPERATIONS,
    permissions=Permissions(
        publish=(
            _PASSED_ON,
            subjects.ROLL_CALL,
            *(operation.pattern() for operation in subjects.WORKER_OPERATIONS),
            subjects.TASK_EVENT.format(task="*", kind=TaskEventKind.STATUS.value, by=subjects.COORDINATOR),
            # To hear which leases expire.
            f"$JS.API.CONSUMER.CREATE.{_LEASES}.*.$KV.{buckets.LEASES.name}.>",
            f"$JS.API.CONSUMER.INFO.{_LEASES}.*",
        ),
        subscribe=(
            *(operation.pattern() for operation in subjects.REPORTING_OPERATIONS),
            _PASSED_ON,
            subjects.wildcard(subjects.WORKER_PRESENCE),
        ),
    ),
    objects=True,
    streams=streams.RUNTIME,
    buckets=buckets.RUNTIME,
    migrations=MIGRATIONS,
    overview=_overview,
    probe=subjects.STATS,
)
