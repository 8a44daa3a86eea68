"""Ends a merge before each statement it makes, one after the other, and prints what is left each time.

`python -m tests.integration.merge.kill_points HOME`: a process of its own, so that each try is a fork of one that has
no database open. HOME holds `live.db`, `base.db` and `theirs.db`, which are not touched.
"""

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from membridge.aio.deadline import Deadline
from membridge.claudemem.sql import Bindings, Connection
from membridge.merge import snapshot
from membridge.merge.conflicts import Journal
from membridge.merge.report import Source
from schemas.identity import NodeId
from tests.fixtures.databases import titles

DIED = 9


def merge(folder: Path, home: Path) -> None:
    """Merge what `home` holds into the live database of `folder`."""
    journal = Journal(folder / "journal.db")
    snapshot.merge_snapshot(
        folder / "live.db",
        base=home / "base.db",
        theirs=home / "theirs.db",
        source=Source(NodeId("theirs")),
        journal=journal,
        deadline=Deadline.after(60),
    )
    journal.close()


def dying_at(number: int) -> None:
    """Let this process end before its statement `number`, as SIGKILL would end it."""
    left, run = [number], Connection.run

    def counted(self: Connection, sql: str, bindings: Bindings = ()) -> None:
        left[0] -= 1
        if left[0] < 0:
            os._exit(DIED)
        run(self, sql, bindings)

    Connection.run = counted


def forked(act: Callable[[], None]) -> int:
    """Do `act` in a fork; return how it ended."""
    pid = os.fork()
    if pid == 0:
        act()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def attempt(home: Path, number: int) -> bool:
    """Kill a merge before statement `number`, print what is left, finish it; return whether it was killed."""
    folder = home / "try"
    folder.mkdir()
    shutil.copyfile(home / "live.db", folder / "live.db")

    def killed() -> None:
        dying_at(number)
        merge(folder, home)

    died = forked(killed) == DIED
    print(json.dumps([died, *found(folder)]))  # noqa: T201 - what the test reads
    assert forked(lambda: merge(folder, home)) == 0
    print(json.dumps([died, *found(folder)]))  # noqa: T201 - as above
    shutil.rmtree(folder)
    return died


def found(folder: Path) -> tuple[list[str], list[object]]:
    """Return the titles in the database and those of the losers in the journal."""
    journal = Journal(folder / "journal.db")
    lost = [conflict.lost.row["title"] for conflict in journal.conflicts()]
    journal.close()
    return sorted(map(str, titles(folder / "live.db"))), lost


if __name__ == "__main__":
    tried = 0
    while attempt(Path(sys.argv[1]), tried):
        tried += 1
