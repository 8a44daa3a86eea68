"""The declaration of one setting, and the table of all of them.

A setting is declared once, as a field of a group in `membridge.settings.groups` or of a service. Loading, `membridge
config show`, the reference page and every error read this table.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar, cast

from membridge.settings.kinds import Kind, show

T = TypeVar("T")

_KEY = "setting"


@dataclass(frozen=True, slots=True, kw_only=True)
class Declaration:
    """How a setting is declared; `derived` describes a default that depends on the machine."""

    kind: Kind[object]
    env: str
    meaning: str
    unit: str
    off: str
    derived: str
    in_file: bool


@dataclass(frozen=True, slots=True)
class Setting:
    """One line of the table."""

    group: str
    field: str
    declared: Declaration
    default: object

    @property
    def key(self) -> str:
        """Its name in the configuration file and in errors, such as `lane.auto_sync`."""
        return f"{self.group}.{self.field}"

    @property
    def default_text(self) -> str:
        """The default as people read it."""
        return self.declared.derived or show(self.default)


def setting(  # noqa: PLR0913 - the columns of the table, all by keyword but the first
    kind: Kind[T],
    *,
    default: T | None = None,
    env: str,
    meaning: str,
    unit: str = "",
    off: str = "",
    derived: str = "",
    in_file: bool = True,
) -> T:
    """Declare a group's field; with `derived` it has no default of its own and loading computes one.

    `off` is the value that turns the behaviour off; `in_file` says whether a configuration file may set it.
    """
    declared = Declaration(kind=kind, env=env, meaning=meaning, unit=unit, off=off, derived=derived, in_file=in_file)
    metadata = {_KEY: declared}
    if derived:
        return cast("T", dataclasses.field(metadata=metadata))
    return cast("T", dataclasses.field(default=default, metadata=metadata))


def table_of(groups: Mapping[str, type]) -> tuple[Setting, ...]:
    """Return every setting of `groups`, in the order of their declaration."""
    return tuple(
        Setting(
            group, field.name, field.metadata[_KEY], None if field.default is dataclasses.MISSING else field.default
        )
        for group, kind in groups.items()
        for field in dataclasses.fields(kind)
    )
