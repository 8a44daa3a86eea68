"""From raw values to `Settings`: later sources win, missing values get their defaults, every value is checked.

`load` reads only the environment and the home folder that it is given, never the environment of the process.
"""

import os
import socket
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, cast
from urllib.parse import unquote, urlsplit

from membridge.errors import SettingsError
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
from membridge.settings.hooks import HookSettings
from membridge.settings.kinds import PATH, PROJECT, Kind, Secret
from membridge.settings.places import config_folder, folder_of, state_folder
from membridge.settings.services import HasSettings, discover
from membridge.settings.sources import FileValues, Raw, from_credentials, from_environment, from_legacy, from_toml, read
from membridge.settings.table import Setting, table_of
from membridge.settings.worker import WorkerSettings
from membridge.system.files import open_to_others
from schemas.identity import ProjectId, canonical_id, node_id_of_host

T = TypeVar("T")
G = TypeVar("G")

DEFAULT = "default"
#: Written by `membridge join` and `membridge up --listen`; `config.toml` overrides it.
ENROLLED = "enrolled.toml"
#: Names of this machine: traffic to them stays on it.
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
#: Shortest passphrase that is accepted, in characters.
SHORTEST_PASSPHRASE = 12


@dataclass(frozen=True, slots=True)
class ProjectConfig:
    """A project that this node serves, and its claude-mem database here."""

    name: str
    id: ProjectId
    database: Path
    #: This node's nkey seed for the project's account; None when the server has no accounts.
    nkey_seed_file: Path | None = None
    #: Sessions in these folders belong to the project, if their hooks name none.
    folders: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that is configured. `warnings` are for the doctor.

    `origins` names each value's source, `labels` how that source spells the setting.
    """

    node: NodeSettings
    project: FirstProject
    nats: NatsSettings
    store: StoreSettings
    lane: LaneSettings
    backup: BackupSettings
    worker: WorkerSettings
    keep: KeepSettings
    leadership: LeadershipSettings
    claude_mem: ClaudeMemSettings
    hooks: HookSettings
    #: The groups that services bring, by name; `of` returns one with its type.
    services: Mapping[str, object]
    projects: tuple[ProjectConfig, ...]
    table: tuple[Setting, ...]
    origins: Mapping[str, str]
    labels: Mapping[str, str]
    warnings: tuple[str, ...] = ()

    def of(self, kind: type[G]) -> G:
        """Return the settings group of a service. Raises SettingsError when that service is not installed."""
        found = next((group for group in self.services.values() if isinstance(group, kind)), None)
        if found is None:
            raise SettingsError(
                f"no installed service has the settings {kind.__name__}", remedy="install Membridge again"
            )
        return found

    def unset(self, key: str) -> str:
        """Return how a person takes away the value of `key`, where it is set, for a remedy."""
        origin, label = self.origins[key], self.labels[key]
        if origin.startswith("credential "):
            return f"remove LoadCredential={label} from the unit"
        return f"unset {label}" if origin.startswith("env ") else f"remove {label} from {origin}"

    def value(self, item: Setting) -> object:
        """Return the value of one line of the table."""
        group = self.services[item.group] if item.group in self.services else getattr(self, item.group)
        return getattr(group, item.field)

    def secrets(self) -> frozenset[str]:
        """Return every secret value, so that a caller can mask them."""
        found = {value.reveal() for item in self.table if isinstance(value := self.value(item), Secret)}
        for url in self.nats.urls:
            parts = urlsplit(url)
            secret = parts.password or parts.username or ""
            found |= {secret, unquote(secret)} - {""}
        return frozenset(found)


@dataclass(frozen=True, slots=True)
class Locations:
    """Where configuration files are looked for."""

    config: Path
    enrolled: Path
    legacy: Path


def locations(environ: Mapping[str, str], home: Path) -> Locations:
    """Return where the configuration files of this user are."""
    item = _declared("node.config_dir")
    name = item.declared.env
    config_dir = (
        _parse(item, Raw(environ[name], f"env {name}", name), home)
        if environ.get(name)
        else config_folder(environ, home)
    )
    return Locations(config_dir / "config.toml", config_dir / ENROLLED, home / ".claude-mem-minio" / "config.env")


def load(environ: Mapping[str, str], home: Path) -> Settings:
    """Return the settings of the user whose home is `home`, under the environment `environ`.

    Raises SettingsError naming the setting, its value and what is allowed; a value that is empty counts as not set.
    """
    where = locations(environ, home)
    found = discover()
    brought = _brought(found.services)
    table = table_of({**GROUPS, **brought})
    files = _files(where, environ, table)
    raw: dict[str, Raw] = {}
    for source in files:
        raw.update({key: one for key, one in source.values.items() if one.value not in ("", None)})
    values = {item.key: _parse(item, raw[item.key], home) for item in table if item.key in raw}
    origins = {item.key: raw[item.key].origin if item.key in raw else DEFAULT for item in table}
    labels = {item.key: raw[item.key].label if item.key in raw else item.key for item in table}
    for key, value in _derived(values, where, environ, home).items():
        values.setdefault(key, value)
    services: dict[str, object] = {name: _group(kind, name, values) for name, kind in brought.items()}
    project = _group(FirstProject, "project", values)
    nats = _group(NatsSettings, "nats", values)
    settings = Settings(
        node=_group(NodeSettings, "node", values),
        project=project,
        nats=nats,
        store=_group(StoreSettings, "store", values),
        lane=_group(LaneSettings, "lane", values),
        backup=_group(BackupSettings, "backup", values),
        worker=_group(WorkerSettings, "worker", values),
        keep=_group(KeepSettings, "keep", values),
        leadership=_group(LeadershipSettings, "leadership", values),
        claude_mem=_group(ClaudeMemSettings, "claude_mem", values),
        hooks=_group(HookSettings, "hooks", values),
        services=MappingProxyType(services),
        projects=_projects(project, nats.keys_dir, files, where, home),
        table=table,
        origins=MappingProxyType(origins),
        labels=MappingProxyType(labels),
    )
    _check_together(settings)
    return _with_warnings(settings, [*found.warnings, *(warning for one in files for warning in one.warnings)], where)


def all_groups() -> dict[str, type]:
    """Return every settings group by its name: those of membridge, then those of the installed services."""
    return {**GROUPS, **_brought(discover().services)}


def _brought(services: Mapping[str, HasSettings]) -> dict[str, type]:
    return {name: services[name].settings for name in sorted(services)}


def _files(where: Locations, environ: Mapping[str, str], table: Sequence[Setting]) -> tuple[FileValues, ...]:
    enrolled, toml, legacy = read(where.enrolled), read(where.config), read(where.legacy)
    return (
        FileValues({}) if enrolled is None else from_toml(enrolled, where.enrolled, table),
        FileValues({}) if toml is None else from_toml(toml, where.config, table),
        FileValues({}) if legacy is None else from_legacy(legacy, where.legacy, environ, table),
        from_credentials(folder_of(environ, "CREDENTIALS_DIRECTORY"), table),
        from_environment(environ, table),
    )


def _declared(key: str) -> Setting:
    return next(item for item in table_of(GROUPS) if item.key == key)


def _parse(item: Setting, raw: Raw, home: Path) -> Any:
    return _checked(item.declared.kind, raw, home, field=item.key)


def _checked(kind: Kind[T], raw: Raw, home: Path, *, field: str) -> T:
    try:
        return kind.parse(raw.value, home)
    except ValueError as error:
        shown = kind.quote(raw.value)
        source = "" if raw.origin.startswith("env ") else f" in {raw.origin}"
        raise SettingsError(f"{raw.label} = {shown}{source}: must be {kind.allowed}", field=field) from error


def _derived(values: Mapping[str, Any], where: Locations, environ: Mapping[str, str], home: Path) -> dict[str, object]:
    """Return the defaults that depend on the machine or on other settings."""
    database: Path | None = values.get("project.database")
    state: Path = values.get("node.state_dir") or state_folder(environ, home)
    memory: Path = values.get("node.claude_mem_dir") or (database.parent if database else home / ".claude-mem")
    return {
        "node.id": node_id_of_host(socket.gethostname()),
        "node.claude_mem_dir": memory,
        "node.state_dir": state,
        "node.config_dir": where.config.parent,
        "node.log_format": LogFormat.TEXT if values.get("node.dev") else LogFormat.AUTO,
        "node.log_level": LogLevel.DEBUG if values.get("node.dev") else LogLevel.INFO,
        "project.database": memory / "claude-mem.db",
        "nats.nkey_seed_file": _loopback_key(values, state),
    }


def loopback_key(state: Path) -> Path:
    """Return where `membridge up` keeps this node's key for its own server on loopback."""
    return state / "access" / "loopback" / "node.seed"


def _loopback_key(values: Mapping[str, Any], state: Path) -> Path | None:
    """Return the key that `membridge up` made, where the settings lead to loopback and name no other key."""
    servers: tuple[str, ...] = values.get("nats.urls") or ("nats://127.0.0.1",)
    urls = [urlsplit(server) for server in servers]
    if any(url.hostname not in LOOPBACK or url.username or url.scheme != "nats" for url in urls):
        return None
    if values.get("nats.credentials_file") or values.get("nats.keys_dir"):
        return None
    key = loopback_key(state)
    # `isfile` is False, not an error, where another user's folder cannot be looked into.
    return key if os.path.isfile(key) else None  # noqa: PTH113 - as said


def _group(kind: type[G], name: str, values: Mapping[str, Any]) -> G:
    prefix = f"{name}."
    return kind(**{key.removeprefix(prefix): value for key, value in values.items() if key.startswith(prefix)})


def _projects(
    first: FirstProject, keys_dir: Path | None, files: tuple[FileValues, ...], where: Locations, home: Path
) -> tuple[ProjectConfig, ...]:
    def config(name: str, database: Path, folders: tuple[Path, ...] = ()) -> ProjectConfig:
        project = canonical_id(name)
        return ProjectConfig(name, project, database, seed_file(keys_dir, project), folders)

    found = [config(first.name, first.database)]
    for index, item in enumerate(entry for source in files for entry in source.projects):
        origin, label = str(where.config), f"projects[{index}]"
        name = _checked(PROJECT, Raw(item.get("name"), origin, f"{label}.name"), home, field="projects")
        database = _checked(PATH, Raw(item.get("database"), origin, f"{label}.database"), home, field="projects")
        folders = tuple(
            _checked(PATH, Raw(folder, origin, f"{label}.folders"), home, field="projects")
            for folder in _listed(item.get("folders", []), origin, f"{label}.folders")
        )
        found.append(config(name, database, folders))
    names: set[str] = set()
    databases: dict[str, str] = {}
    for project in found:
        if project.name in names:
            raise SettingsError(
                f"project {project.name!r} is configured twice",
                remedy=f"remove one from {where.config}",
                field="projects",
            )
        other = databases.setdefault(os.path.realpath(project.database), project.name)
        if other != project.name:
            raise SettingsError(
                f"projects {other!r} and {project.name!r} have the same database {project.database}",
                remedy="give each project a database of its own",
                field="projects",
            )
        names.add(project.name)
    return tuple(found)


def _listed(value: object, origin: str, label: str) -> list[object]:
    if not isinstance(value, list):
        raise SettingsError(f"{label} = {value!r} in {origin}: must be a list of folders", field="projects")
    return cast("list[object]", value)


#: The name of a machine's key for the task runtime in the folder of keys.
RUNTIME = "runtime"


def seed_file(keys_dir: Path | None, project: ProjectId) -> Path | None:
    """Return the file of this node's nkey seed for a project, None when the server has no accounts."""
    return None if keys_dir is None else keys_dir / f"{project}.seed"


def _check_together(settings: Settings) -> None:
    lane, store = settings.lane, settings.store
    if lane.quiet_max_seconds < lane.quiet_seconds:
        raise SettingsError(
            f"lane.quiet_max_seconds = {lane.quiet_max_seconds:g}: must be at least lane.quiet_seconds, "
            f"which is {lane.quiet_seconds:g}",
            field="lane.quiet_max_seconds",
        )
    _check_encryption(store)
    nats = settings.nats
    own = (nats.certificate_file, nats.certificate_key_file, nats.certificate_authority_file)
    if any(own) and not all(own):
        raise SettingsError(
            "nats.certificate_file, certificate_key_file and certificate_authority_file belong together",
            remedy="set all three, or none of them",
            field="nats.certificate_file",
        )
    if store.backend is StoreKind.S3:
        for key in ("endpoint", "access_key", "secret_key"):
            if getattr(store, key) is None:
                item = _declared(f"store.{key}")
                raise SettingsError(
                    f"{item.declared.env} is not set: an S3 store needs it",
                    remedy="set it, or MEMBRIDGE_STORE=jetstream to keep snapshots in NATS",
                    field=item.key,
                )


def _check_encryption(store: StoreSettings) -> None:
    if store.encrypted and store.publish_legacy:
        raise SettingsError(
            "store.publish_legacy = true: must be false with encryption on, because that layout is not encrypted",
            field="store.publish_legacy",
        )
    passphrase = store.encryption_passphrase
    if passphrase is not None and len(passphrase.reveal()) < SHORTEST_PASSPHRASE:
        raise SettingsError(
            f"store.encryption_passphrase = {passphrase}: must have at least {SHORTEST_PASSPHRASE} characters",
            field="store.encryption_passphrase",
        )


def _with_warnings(settings: Settings, warnings: list[str], where: Locations) -> Settings:
    secret_keys = {item.key for item in settings.table if item.declared.kind.secret} | {"nats.urls"}
    exposed = {Path(origin) for key, origin in settings.origins.items() if key in secret_keys} & {*_paths(where)}
    # What systemd shows a unit by an access list looks like a file of its group, and is this unit's alone.
    named = (
        ("nats.credentials_file", settings.nats.credentials_file),
        ("nats.nkey_seed_file", settings.nats.nkey_seed_file),
    )
    exposed |= {file for key, file in named if file and not settings.origins[key].startswith("credential ")}
    told = [
        f"{path} holds a secret and others can read it: run `chmod 600 {path}`"
        for path in sorted(exposed)
        if _readable_by_others(path)
    ]
    return replace(settings, warnings=(*warnings, *told))


def _paths(where: Locations) -> tuple[Path, ...]:
    return where.config, where.enrolled, where.legacy


def _readable_by_others(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return stat.S_ISREG(mode) and open_to_others(mode, stat.S_IRGRP | stat.S_IROTH)
