"""Raw values and where each came from: the configuration file, the old tool's `config.env`, the environment.

Nothing in a file is ever executed: `config.env` is read as the plain assignments that a shell would make of it.
"""

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from membridge.errors import SettingsError
from membridge.settings.groups import GROUPS
from membridge.settings.kinds import PATH
from membridge.settings.table import Setting, table_of

#: A larger file is not a configuration file.
MAX_FILE_BYTES = 1 << 20

#: Prefix of variables that only Membridge reads.
PREFIX = "MEMBRIDGE_"
PROJECT_KEYS = ("name", "database", "folders")

#: Sections by their former names. `worker` was another section's name before: its keys tell which one is meant.
FORMER_SECTIONS = {"executor": "worker", "worker": "claude_mem"}
#: Keys by their former names. None of them is a key of today.
FORMER_KEYS = {
    f"{former}.{item.field}": item.key
    for former, group in FORMER_SECTIONS.items()
    for item in table_of(GROUPS)
    if item.group == group
}

_ASSIGNMENT = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)
_SEGMENT = re.compile(r"""'(?P<single>[^']*)'|"(?P<double>(?:[^"\\]|\\.)*)"|(?P<bare>(?:[^\s'"\\;&|<>()]|\\.)+)""")
_AFTER = re.compile(r"\s*;?\s*(#.*)?")
_REFERENCE = re.compile(r"\\(.)|\$\{([A-Za-z_]\w*)\}|\$([A-Za-z_]\w*)|(`|\$[({])", re.ASCII)


@dataclass(frozen=True, slots=True)
class Raw:
    """A value as it was found: `origin` for people, `label` how its source spells the setting."""

    value: object
    origin: str
    label: str


@dataclass(frozen=True, slots=True)
class FileValues:
    """What a file holds: values by setting key, more projects, warnings."""

    values: dict[str, Raw]
    projects: tuple[Mapping[str, object], ...] = ()
    warnings: tuple[str, ...] = ()


def read(path: Path) -> str | None:
    """Return the text of a configuration file, None when there is none."""
    try:
        with path.open("rb") as file:
            body = file.read(MAX_FILE_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise SettingsError(
            f"{path} cannot be read: {error.strerror}", remedy="check its owner and permissions", field=path.name
        ) from error
    if len(body) > MAX_FILE_BYTES:
        raise SettingsError(f"{path} is too large for a file of settings: over {MAX_FILE_BYTES} bytes", field=path.name)
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SettingsError(
            f"{path} is not UTF-8 text: see byte {error.start}", remedy="save it as UTF-8", field=path.name
        ) from error


def from_toml(text: str, path: Path, table: Sequence[Setting]) -> FileValues:
    """Return the values of `config.toml`; raise SettingsError for an unknown key."""
    import tomllib  # noqa: PLC0415 - for the daemons that have such a file

    try:
        document = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{path} is not valid TOML: {_one_line(error)}", field=path.name) from error
    known = tuple(item.key for item in table if item.declared.in_file)
    groups = dict.fromkeys(item.group for item in table)
    values: dict[str, Raw] = {}
    projects: tuple[Mapping[str, object], ...] = ()
    for group, content in document.items():
        if group == "projects":
            projects = _projects(content, path)
            continue
        if group not in {*groups, *FORMER_SECTIONS} or not isinstance(content, dict):
            raise _unknown(group, (*groups, "projects"), path)
        for field, value in cast("dict[str, object]", content).items():
            written = f"{group}.{field}"
            key = FORMER_KEYS.get(written, written)
            if key not in known:
                raise _unknown(written, (*known, *FORMER_KEYS), path)
            _refuse_two_values(values.get(key), found := Raw(value, str(path), written), key)
            values[key] = found
    return FileValues(values, projects, _renamed(values, path))


def _refuse_two_values(first: Raw | None, second: Raw, key: str) -> None:
    """Raise SettingsError when a key and its former name hold different values."""
    if first is not None and (first.value, type(first.value)) != (second.value, type(second.value)):
        former = first.label if second.label == key else second.label
        raise SettingsError(
            f"{key} and {former} in {second.origin} differ, and {former} is the old name of {key}",
            remedy=f"keep {key} and remove {former}",
            field=key,
        )


def _renamed(values: Mapping[str, Raw], path: Path) -> tuple[str, ...]:
    """Return what to warn of: for each section by its former name, the keys that were read from it."""
    moved: dict[tuple[str, str], list[str]] = {}
    for key, raw in values.items():
        if raw.label != key:
            group, field = key.split(".")
            moved.setdefault((raw.label.split(".")[0], group), []).append(field)
    return tuple(
        f"{', '.join(fields)} of [{former}] in {path} moved to [{group}]: write them there"
        for (former, group), fields in moved.items()
    )


def from_legacy(text: str, path: Path, environ: Mapping[str, str], table: Sequence[Setting]) -> FileValues:
    """Return the values of the old tool's `config.env`; a line that is not an assignment is skipped with a warning."""
    keys = {item.declared.env: item.key for item in table if item.declared.in_file}
    seen: dict[str, str] = {}
    values: dict[str, Raw] = {}
    warnings: list[str] = []
    for number, line in enumerate(text.split("\n"), start=1):
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        found = _ASSIGNMENT.fullmatch(stripped)
        if not found:
            warnings.append(f"{path} line {number} is not KEY=value and was skipped")
            continue
        name, written = found[1], found[2]
        if _is_slip(name, keys):
            warnings.append(f"{path} line {number}: {name} is not a setting: {_hint(name, keys)}")
        value = _shell_word(written, {**environ, **seen})
        if value is not None:
            seen[name] = value
        if name in keys:
            if value is None:
                raise SettingsError(
                    f"{name} in {path} line {number}: must be plain text, quoted if need be; nothing is executed",
                    field=keys[name],
                )
            values[keys[name]] = Raw(value, str(path), name)
    return FileValues(values, warnings=tuple(warnings))


def from_environment(environ: Mapping[str, str], table: Sequence[Setting]) -> FileValues:
    """Return the values of the environment; a `MEMBRIDGE_` name that is not a setting gets a warning."""
    keys = {item.declared.env: item.key for item in table}
    values = {keys[name]: Raw(value, f"env {name}", name) for name, value in environ.items() if name in keys}
    warnings = [f"{name} is not a setting: {_hint(name, keys)}" for name in sorted(environ) if _is_slip(name, keys)]
    return FileValues(values, warnings=tuple(warnings))


def from_credentials(folder: Path | None, table: Sequence[Setting]) -> FileValues:
    """Return the values that systemd's `LoadCredential` brought: each file has the name of a setting's variable.

    The file is the value of a setting that names a file, its text that of any other.
    """
    values: dict[str, Raw] = {}
    if folder is None:
        return FileValues(values)
    for item in table:
        name = item.declared.env
        file = folder / name
        if os.path.isfile(file):  # noqa: PTH113 - False, not an error, where a folder cannot be looked into
            value = str(file) if item.declared.kind.parse is PATH.parse else (read(file) or "").strip()
            values[item.key] = Raw(value, f"credential {name}", name)
    return FileValues(values)


def _is_slip(name: str, known: Mapping[str, str]) -> bool:
    return name.startswith(PREFIX) and name not in known


def _shell_word(text: str, variables: Mapping[str, str]) -> str | None:
    """Return the word that a shell would assign, None where that takes a shell."""
    position, parts = 0, list[str]()
    while found := _SEGMENT.match(text, position):
        position = found.end()
        if found["single"] is not None:
            parts.append(found["single"])
            continue
        quoted = found["double"] is not None
        expanded = _expand(found["double"] if quoted else found["bare"], variables, quoted=quoted)
        if expanded is None:
            return None
        parts.append(expanded)
    return "".join(parts) if _AFTER.fullmatch(text, position) else None


def _expand(text: str, variables: Mapping[str, str], *, quoted: bool) -> str | None:
    if any(match[4] for match in _REFERENCE.finditer(text)):
        return None

    def put(match: re.Match[str]) -> str:
        if match[1] is not None:
            return match[1] if not quoted or match[1] in '$`"\\' else match[0]
        return variables.get(match[2] or match[3], "")

    return _REFERENCE.sub(put, text)


def _projects(content: object, path: Path) -> tuple[Mapping[str, object], ...]:
    items = cast("list[object]", content) if isinstance(content, list) else [None]
    found: list[Mapping[str, object]] = []
    for item in items:
        if not isinstance(item, dict):
            raise SettingsError(
                f"projects in {path}: must be tables [[projects]] with name and database", field="projects"
            )
        project = cast("dict[str, object]", item)
        for key in project:
            if key not in PROJECT_KEYS:
                raise _unknown(f"projects.{key}", tuple(f"projects.{known}" for known in PROJECT_KEYS), path)
        found.append(project)
    return tuple(found)


def _unknown(key: str, known: tuple[str, ...], path: Path) -> SettingsError:
    return SettingsError(f"{_one_line(key)} in {path} is not a setting: {_hint(key, known)}", field=key)


def _hint(name: str, known: Iterable[str]) -> str:
    """Suggest the setting that was probably meant."""
    import difflib  # noqa: PLC0415 - for the daemons whose settings have a slip in them

    # The common prefix would make every name look similar.
    by_rest = {one.removeprefix(PREFIX): one for one in known}
    near = difflib.get_close_matches(name.removeprefix(PREFIX), list(by_rest), n=1)
    found = FORMER_KEYS.get(by_rest[near[0]], by_rest[near[0]]) if near else None
    return f"did you mean {found}?" if found else "`membridge config reference` lists the settings"


def _one_line(value: object) -> str:
    text = " ".join(str(value).split())
    return "".join(char if char.isprintable() else "?" for char in text)[:200]
