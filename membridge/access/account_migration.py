"""What the bundled server keeps of a memory moves along when the memory gets an account of its own, and back.

JetStream has a folder for each account, called by its name; a stream in it does not say whose it is. So the one folder
of a machine with one project is renamed while the server is down: all of it, or nothing. The streams of tasks that come
along are not used there; a coordinator knows its tasks from its database.
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
    """Give the project its account's data, before the server with the folder `server` starts. Blocking.

    With several projects nothing moves: one folder cannot become theirs. Raises FileAccessError and, for a server that
    was left behind and does not end, BusUnavailableError.
    """
    for project in _only(projects):
        _carry(server, GLOBAL, account_of(project))


def out_of_accounts(server: Path, projects: Iterable[ProjectId]) -> None:
    """Undo that, for a server that has no accounts any more."""
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
