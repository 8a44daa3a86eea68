"""Where this user's configuration and state are: by variables of systemd and XDG, else where the system has them.

On Windows that is `%APPDATA%` for what a person set and `%LOCALAPPDATA%` for what this machine made, both below the
profile that only its user and administrators can read.
"""

from collections.abc import Mapping
from pathlib import Path

from membridge.system.windows import on_windows


def config_folder(environ: Mapping[str, str], home: Path) -> Path:
    """Return the folder of `config.toml`, if no setting names one."""
    if on_windows():
        return (_on_drive(environ, "APPDATA") or home / "AppData" / "Roaming") / "Membridge"
    root = folder_of(environ, "XDG_CONFIG_HOME") or home / ".config"
    return folder_of(environ, "CONFIGURATION_DIRECTORY") or root / "membridge"


def state_folder(environ: Mapping[str, str], home: Path) -> Path:
    """Return the folder of what this machine keeps, if no setting names one."""
    if on_windows():
        return (_on_drive(environ, "LOCALAPPDATA") or home / "AppData" / "Local") / "Membridge" / "state"
    root = folder_of(environ, "XDG_STATE_HOME") or home / ".local" / "state"
    return folder_of(environ, "STATE_DIRECTORY") or root / "membridge"


def folder_of(environ: Mapping[str, str], name: str) -> Path | None:
    """Return the first folder of a variable of systemd or XDG; both want absolute paths, and others are ignored."""
    first = environ.get(name, "").split(":")[0]
    return Path(first) if first.startswith("/") and first.isprintable() else None


def _on_drive(environ: Mapping[str, str], name: str) -> Path | None:
    found = environ.get(name, "")
    return Path(found) if found.isprintable() and Path(found).is_absolute() else None
