"""`GET /api/settings`: the settings that apply where the gateway runs, each with its origin, as `membridge config`."""

from membridge.settings import Settings, shown
from schemas.gateway import EffectiveSetting, EffectiveSettings
from schemas.node import Empty
from services.gateway.callers import CONFIGURE
from services.web.routes import Call, Endpoint, Method, Route

SETTINGS = Route(
    "settings", Method.GET, "/api/settings", Empty, EffectiveSettings,
    "The settings of this machine with their origin; secrets are masked.", CONFIGURE,
)  # fmt: skip


def endpoints(settings: Settings) -> list[Endpoint]:
    """Return the endpoint of settings."""

    async def answer(_: Empty, __: Call) -> EffectiveSettings:
        lines = [
            EffectiveSetting(
                key=one.key, value=one.value, origin=one.origin, env=one.env, unit=one.unit, meaning=one.meaning
            )
            for one in shown(settings)
        ]
        return EffectiveSettings(node=settings.node.id, settings=lines, warnings=list(settings.warnings))

    return [SETTINGS.bind(answer)]
