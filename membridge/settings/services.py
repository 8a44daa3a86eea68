"""The settings groups that installed services bring. A service is declared in `membridge.wiring.service`."""

import re
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from membridge.settings.groups import GROUPS
from membridge.settings.sources import FORMER_SECTIONS
from membridge.settings.table import table_of
from membridge.system.entry_points import entry_points, resolve

#: The entry-point group in which a distribution lists its services.
SERVICES = "membridge.services"
#: Names that mean something else: in the configuration file, and in the folder of keys.
RESERVED = frozenset({*GROUPS, *FORMER_SECTIONS, "projects", "runtime"})
_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")


@runtime_checkable
class HasSettings(Protocol):
    """What loading needs of a service: its name and its settings group, a dataclass of `setting` fields."""

    @property
    def name(self) -> str:
        """The name of the service, and of its group."""
        ...

    @property
    def settings(self) -> type:
        """The class of the group."""
        ...


@dataclass(frozen=True, slots=True)
class Discovered:
    """The services that are installed, by name, and why others cannot be used."""

    services: dict[str, HasSettings]
    warnings: tuple[str, ...]


def discover() -> Discovered:
    """Load the declaration of each installed service, and nothing else of it. Blocking."""
    services: dict[str, HasSettings] = {}
    warnings: list[str] = []
    for label, target in sorted(entry_points(SERVICES).items()):
        try:
            service = resolve(target)
            if not isinstance(service, HasSettings):
                raise TypeError(f"{target} does not declare a service")  # noqa: TRY301 - told like any other failure
            _check(service, services)
        except Exception as error:  # noqa: BLE001 - a package of somebody else may fail in any way
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            warnings.append(f"service {label} is left out: {reason}: update or remove the package that brings it")
        else:
            services[service.name] = service
    return Discovered(services, tuple(warnings))


def _check(service: HasSettings, others: dict[str, HasSettings]) -> None:
    """Raise ValueError when a name of the service is malformed or taken."""
    if not _NAME.fullmatch(service.name) or service.name in {*RESERVED, *others}:
        raise ValueError(f"the name {service.name!r} is malformed or taken")
    known = {**GROUPS, **{name: other.settings for name, other in others.items()}}
    own = {item.declared.env for item in table_of({service.name: service.settings})}
    if taken := own & {item.declared.env for item in table_of(known)}:
        raise ValueError(f"{min(taken)} is already a setting")
