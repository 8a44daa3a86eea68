"""The projects that this node serves: those of the settings, and those added by command, in the state folder."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from membridge.errors import InvalidRequestError, RefusedError, UnknownProjectError
from membridge.settings import ProjectConfig, Settings, seed_file
from membridge.system import files
from schemas.identity import InvalidTokenError, ProjectId, canonical_id

_FILE = "projects.json"
#: Held while the list is changed. A file of its own: the list is replaced by each change.
_LOCK = "projects.lock"


class Added(msgspec.Struct, frozen=True):
    """A project that was added by command: its name and database file."""

    name: str
    database: str


def load(settings: Settings) -> list[ProjectConfig]:
    """Return all projects, those of the settings first. Blocking."""
    projects = {config.id: config for config in settings.projects}
    for added in _added(settings):
        config = _config(settings, added.name, Path(added.database))
        projects.setdefault(config.id, config)
    return list(projects.values())


def of_session(settings: Settings, name: str | None, folder: str) -> ProjectConfig:
    """Return the project of a session: the one called `name`, else the one that its folder belongs to. Blocking.

    The longest of the `folders` in the settings decides; a folder in none of them belongs to the first project.
    Raises UnknownProjectError for a name that no project of this node has.
    """
    known = load(settings)
    if name is not None:
        found = next((one for one in known if name in {one.name, one.id}), None)
        if found is None:
            raise UnknownProjectError(f"this node does not serve project {name!r}", field="name")
        return found
    owners = [(len(root.parts), one) for one in known for root in one.folders if _is_in(folder, root)]
    return max(owners, key=lambda owner: owner[0])[1] if owners else known[0]


def _is_in(folder: str, root: Path) -> bool:
    path = Path(folder)
    return path.is_relative_to(root) or path.is_relative_to(os.path.realpath(root))


def checked(settings: Settings, name: str, database: str | None) -> ProjectConfig:
    """Return the project that `add` would register, or the known one that is the same. Writes nothing. Blocking.

    Errors: InvalidRequestError for a name or path that is not valid, or a database that another project uses.
    """
    try:
        project = canonical_id(name)
    except InvalidTokenError as error:
        raise InvalidRequestError(str(error), field="name") from error
    path = Path(database).expanduser() if database else settings.projects[0].database
    if not path.is_absolute():
        raise InvalidRequestError(
            f"the path of the database, {path}, is not absolute", remedy="begin it with /", field="database"
        )
    known = {config.id: config for config in load(settings)}
    there = known.get(project)
    if there is not None and (database is None or _same(there.database, path)):
        return there
    for other in known.values():
        if other.id == project or _same(other.database, path):
            raise InvalidRequestError(
                f"project {other.name} already uses {other.database}",
                remedy="give each project its own database: `membridge project add NAME --database PATH`",
                field="database",
            )
    return _config(settings, name, path)


def add(settings: Settings, name: str, database: str | None) -> ProjectConfig:
    """Register a project and return it; a known one with the same database is returned as it is. Blocking.

    Two processes may add at the same time: each sees what the other one wrote. Errors: those of `checked`, and
    FileAccessError or DiskFullError when the list cannot be written.
    """
    with _alone(settings.node.state_dir):
        config = checked(settings, name, database)
        if config not in load(settings):
            kept = [*_added(settings), Added(name=name, database=str(config.database))]
            files.save(settings.node.state_dir / _FILE, msgspec.json.encode(kept))
        return config


def removable(settings: Settings, name: str) -> ProjectConfig:
    """Return the project of this name or id, which `forget` would take off the list. Blocking.

    Errors: UnknownProjectError; RefusedError for one that the settings name, which would be back at the next start.
    """
    found = next((one for one in load(settings) if name in {one.name, one.id}), None)
    if found is None:
        raise UnknownProjectError(
            f"this node does not serve project {name!r}", remedy="run `membridge project list`", field="name"
        )
    if found.id in {one.id for one in settings.projects}:
        raise RefusedError(
            f"project {found.name} is in this node's settings, so it would be back at the next start",
            remedy="remove it there (`membridge config show` shows where that is) and restart",
            field="name",
        )
    return found


def forget(settings: Settings, project: ProjectId) -> None:
    """Remove an added project from the list. Idempotent. Blocking."""
    with _alone(settings.node.state_dir):
        added = _added(settings)
        kept = [item for item in added if canonical_id(item.name) != project]
        if len(kept) != len(added):
            files.save(settings.node.state_dir / _FILE, msgspec.json.encode(kept))


@contextmanager
def _alone(state: Path) -> Generator[None]:
    """Keep other processes from changing the list during the body."""
    import fcntl  # noqa: PLC0415 - Windows has none, and a client there reads the list alone

    path = state / _LOCK
    with files.translated(path):
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = path.open("a")
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _config(settings: Settings, name: str, database: Path) -> ProjectConfig:
    project = canonical_id(name)
    return ProjectConfig(name, project, database, seed_file(settings.nats.keys_dir, project))


def _same(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()


def _added(settings: Settings) -> list[Added]:
    path = settings.node.state_dir / _FILE
    try:
        with files.translated(path):
            body = path.read_bytes() if path.exists() else b"[]"
        return msgspec.json.decode(body, type=list[Added])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequestError(
            f"{path} cannot be read: {error}",
            remedy="move it away and run `membridge project add NAME` for each project again",
        ) from error
