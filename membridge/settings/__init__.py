"""Settings: one typed value from defaults, files and the environment, each with its origin.

Never reads the process environment by itself, never writes a file, never executes what a file holds.
"""

from membridge.settings.groups import (
    LogFormat,
    LogLevel,
    NatsSettings,
    StoreKind,
)
from membridge.settings.kinds import mask_userinfo
from membridge.settings.loading import (
    DEFAULT,
    ENROLLED,
    LOOPBACK,
    RUNTIME,
    ProjectConfig,
    Settings,
    all_groups,
    load,
    locations,
    loopback_key,
    seed_file,
)
from membridge.settings.reference import render_reference, shown

__all__ = [
    "DEFAULT",
    "ENROLLED",
    "LOOPBACK",
    "RUNTIME",
    "LogFormat",
    "LogLevel",
    "NatsSettings",
    "ProjectConfig",
    "Settings",
    "StoreKind",
    "all_groups",
    "load",
    "locations",
    "loopback_key",
    "mask_userinfo",
    "render_reference",
    "seed_file",
    "shown",
]
