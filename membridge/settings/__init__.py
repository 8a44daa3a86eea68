"""Settings: one typed value from defaults, files and the environment, each with its origin.

Never reads the process environment by itself, never writes a file, never executes what a file holds.
"""

from membridge.settings.groups import (
    GROUPS,
    BackupSettings,
    ClaudeMemSettings,
    FirstProject,
    KeepSettings,
    LaneSettings,
    LeadershipSettings,
    LogFormat,
    LogLevel,
    NatsSettings,
    NodeSettings,
    StoreKind,
    StoreSettings,
)
from membridge.settings.kinds import MASK, Secret, mask_userinfo
from membridge.settings.loading import (
    DEFAULT,
    ENROLLED,
    LOOPBACK,
    RUNTIME,
    Locations,
    ProjectConfig,
    Settings,
    all_groups,
    load,
    locations,
    loopback_key,
    seed_file,
)
from membridge.settings.reference import Shown, render_reference, shown

__all__ = [
    "DEFAULT",
    "ENROLLED",
    "GROUPS",
    "LOOPBACK",
    "MASK",
    "RUNTIME",
    "BackupSettings",
    "ClaudeMemSettings",
    "FirstProject",
    "KeepSettings",
    "LaneSettings",
    "LeadershipSettings",
    "Locations",
    "LogFormat",
    "LogLevel",
    "NatsSettings",
    "NodeSettings",
    "ProjectConfig",
    "Secret",
    "Settings",
    "Shown",
    "StoreKind",
    "StoreSettings",
    "all_groups",
    "load",
    "locations",
    "loopback_key",
    "mask_userinfo",
    "render_reference",
    "seed_file",
    "shown",
]
