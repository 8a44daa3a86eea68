"""The files of `deploy/` that start Membridge under systemd, OpenRC and launchd.

There is one text for all services: that of the coordinator, in which another name and summary are put.
"""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

_MODEL, _MODEL_SUMMARY = "coordinator", "a coordinator of LLM tasks"
_NEIGHBOURS = "membridge-coordinator.service membridge-gateway.service"


class Kind(StrEnum):
    """What reads a file: systemd for a user or for the system, OpenRC, launchd for a user."""

    USER = "user"
    SYSTEM = "system"
    OPENRC = "openrc"
    LAUNCHD = "launchd"


@dataclass(frozen=True, slots=True)
class _Place:
    folder: str
    #: The name of a file, from the name of what it runs.
    name: str
    #: The folder of our programs, as the files spell it.
    programs: str


_PLACES = {
    Kind.USER: _Place("systemd/user", "membridge-{}.service", "%h/.local/bin/"),
    Kind.SYSTEM: _Place("systemd/system", "membridge-{}.service", "/opt/membridge/current/bin/"),
    Kind.OPENRC: _Place("openrc", "membridge-{}", "/opt/membridge/current/bin"),
    Kind.LAUNCHD: _Place("launchd", "org.membridge.{}.plist", "$HOME/.local/bin/"),
}


def file_name(kind: Kind, runs: str) -> str:
    """Return the name of the file that starts `nats`, `node` or a service. A system's node is a template by user."""
    return _PLACES[kind].name.format("node@" if kind is Kind.SYSTEM and runs == "node" else runs)


def infrastructure(kind: Kind, runs: str, *, services: tuple[str, ...]) -> str:
    """Return the file that starts `nats` or `node`; a node stops before `services`, by their names."""
    text = _read(kind, file_name(kind, runs))
    units = " ".join(f"membridge-{service}.service" for service in services)
    return text.replace(_NEIGHBOURS, units) if kind in {Kind.USER, Kind.SYSTEM} else text


def of_service(kind: Kind, name: str, summary: str) -> str:
    """Return the file that starts the service `name`."""
    text = _read(kind, file_name(kind, _MODEL))
    return text.replace(_MODEL_SUMMARY, summary).replace(_MODEL, name)


def with_programs(kind: Kind, text: str, folder: Path) -> str:
    """Return `text` with our programs in `folder`, an absolute path, instead of where the installer puts them."""
    usual = _PLACES[kind].programs
    return text.replace(usual, str(folder) + ("/" if usual.endswith("/") else ""))


def _read(kind: Kind, name: str) -> str:
    return (_deploy() / _PLACES[kind].folder / name).read_text("utf-8")


def _deploy() -> Path:
    """Return the files that were packaged, or in a source checkout those at its root."""
    here = Path(__file__).resolve()
    packaged = here.with_name("deploy")
    return packaged if packaged.is_dir() else here.parents[2] / "deploy"
