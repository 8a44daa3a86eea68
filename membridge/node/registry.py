"""The projects that this node serves: those of the settings, and those added since, kept in the state folder."""

from pathlib import Path

import msgspec

from membridge.errors import InvalidRequestError
from membridge.settings import ProjectConfig, Settings, seed_file
from membridge.snapshot import files
from schemas.identity import InvalidTokenError, canonical_id

_FILE = "projects.json"


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


def add(settings: Settings, name: str, database: str | None) -> ProjectConfig:
    """Register a project and return it; one that is known with the same database is returned as it is. Blocking.

    Errors: InvalidRequestError for a name that is none, or a database that another project or name has.
    """
    try:
        project = canonical_id(name)
    except InvalidTokenError as error:
        raise InvalidRequestError(str(error), field="name") from error
    path = Path(database).expanduser() if database else settings.projects[0].database
    if not path.is_absolute():
        raise InvalidRequestError(f"the database {path} is not an absolute path", field="database")
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
    kept = [*_added(settings), Added(name=name, database=str(path))]
    files.save(settings.node.state_dir / _FILE, msgspec.json.encode(kept))
    return _config(settings, name, path)


def _config(settings: Settings, name: str, database: Path) -> ProjectConfig:
    project = canonical_id(name)
    return ProjectConfig(name, project, database, seed_file(settings.nats.keys_dir, project))


def _same(one: Path, other: Path) -> bool:
    return one.resolve() == other.resolve()


def _added(settings: Settings) -> list[Added]:
    try:
        return msgspec.json.decode((settings.node.state_dir / _FILE).read_bytes(), type=list[Added])
    except FileNotFoundError:
        return []
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequestError(f"{settings.node.state_dir / _FILE} cannot be read: {error}") from error
