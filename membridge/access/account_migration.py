"""Move the bundled server's data along when a project gets an account of its own, and back.

JetStream keeps a folder for each account, named after it. On a machine with one project that folder is renamed while
the server is down, so all of it moves or nothing. Streams of tasks move along unused: the coordinator has its own
database.
"""

from collections.abc import Iterable
from pathlib import Path

from membridge.access.server_config import account_of
from membridge.embedded import leftover
from membridge.system import files
from membridge.system.logging import get_logger
from schemas.identity import ProjectId

#: The account of users that have none, and of a server without users.
GLOBAL = "$G"

log = get_logger("membridge.access")


def into_accounts(server: Path, projects: Iterable[ProjectId]) -> None:
    """Move the data into the project's account, before the server with the folder `server` starts. Blocking.

    With several projects nothing moves: one folder cannot become several. Raises FileAccessError, and
    BusUnavailableError for a leftover server that does not end.
    """
    for project in _only(projects):
        _carry(server, GLOBAL, account_of(project))


def out_of_accounts(server: Path, projects: Iterable[ProjectId]) -> None:
    """Move it back, for a server without accounts."""
    for project in _only(projects):
        _carry(server, account_of(project), GLOBAL)


def _only(projects: Iterable[ProjectId]) -> list[ProjectId]:
    found = list(projects)
    return found if len(found) == 1 else []


def _carry(server: Path, source: str, target: str) -> None:
    store = server / "jetstream"
    if not (store / source).is_dir() or (store / target).exists():
        return
    leftover.end(server)
    with files.translated(store / target):
        (store / source).rename(store / target)
        files.sync_path(store)
    log.info("data of the server moved to another account", path=str(store / target))
