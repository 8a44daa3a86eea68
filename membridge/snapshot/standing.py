"""How the live database stands to the mirror: its rows, and those that the canonical memory lacks. Blocking.

Everybody who asks gets the answer from here, so that `status`, the nodes' presence, a proposal and a push agree. Read
from the row index, at the cost of what changed; an index that cannot be used costs a comparison of everything, and
nothing else.
"""

from collections.abc import Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass

from membridge.aio.deadline import Deadline
from membridge.claudemem import database
from membridge.claudemem.connection import open_to_compare
from membridge.claudemem.sql import Connection
from membridge.errors import DatabaseCorruptError
from membridge.merge import collect
from membridge.merge.audit import Audit, Slice
from membridge.merge.collect import OpenRows
from membridge.merge.difference import difference
from membridge.merge.index_file import IndexFileError
from membridge.merge.memory_file import MemoryFile, OtherMemoryError
from membridge.merge.row_index import Keys, MirrorFile, Standing
from membridge.snapshot.lane import Lane
from membridge.system.logging import get_logger
from schemas.proposal import ProposedRow

log = get_logger("membridge.snapshot")


@dataclass(frozen=True, slots=True)
class Numbers:
    """Rows of the live database by table, and how many of them the canonical memory lacks."""

    rows: dict[str, int]
    unsynced: int


def numbers(lane: Lane, *, deadline: Deadline) -> Numbers:
    """Count the live database's rows. Errors: the database's, DeadlineExceededError."""
    mirror = _mirror(lane)
    try:
        standing = lane.index.catch_up(mirror, deadline=deadline)
        if mirror is None:
            return Numbers(standing.rows, sum(standing.rows.values()))
        return Numbers(standing.rows, len(_open_rows(lane, mirror, standing, deadline).rows))
    except IndexFileError as error:
        lane.index.problem.tell(str(error))
    rows = database.inspect(lane.database, deadline=deadline).rows
    if mirror is None:
        return Numbers(rows, sum(rows.values()))
    return Numbers(rows, len(collect.collect(lane.database, mirror.path, journal=lane.journal, deadline=deadline)))


def proposable(lane: Lane, *, deadline: Deadline) -> list[ProposedRow]:
    """Return the rows that the canonical memory lacks, as `collect` does. Errors: as `numbers`."""
    mirror = _mirror(lane)
    if mirror is not None:
        try:
            return _open_rows(lane, mirror, lane.index.catch_up(mirror, deadline=deadline), deadline).rows
        except IndexFileError as error:
            lane.index.problem.tell(str(error))
    return collect.collect(lane.database, mirror.path if mirror else None, journal=lane.journal, deadline=deadline)


@dataclass(frozen=True, slots=True)
class Seen:
    """What was read of the live database: the keys under which it may differ from the mirror, and the index's turn."""

    keys: Keys
    since: int | None


@contextmanager
def looking(lane: Lane, *, deadline: Deadline) -> Generator[tuple[Connection, Seen]]:
    """Give the live database in a transaction, and the keys under which it may differ from the mirror in that.

    Errors: as `numbers`, and those of the body.
    """
    mirror = _mirror(lane)
    if mirror is None:
        raise ValueError("there is no mirror to compare with")
    is_seen = False
    try:
        with lane.index.looking(mirror, deadline=deadline) as (standing, live):
            is_seen = True
            yield live, Seen(standing.open, standing.turn)
    except IndexFileError as error:
        lane.index.problem.tell(str(error))
    if is_seen:
        return
    with open_to_compare(lane.database, mirror.path, deadline=deadline) as both:
        both.run("BEGIN")
        keys = {one.ours.name: one.keys(both) for one in difference(both) if not one.is_empty}
        yield both, Seen(keys, None)


def feed(lane: Lane, *, deadline: Deadline) -> None:
    """Let the index take in what changed in the live database. Errors: the database's, DeadlineExceededError."""
    try:
        lane.index.feed(deadline=deadline)
    except IndexFileError as error:
        lane.index.problem.tell(str(error))


def audit_slice(lane: Lane, audit: Audit, *, deadline: Deadline) -> Slice | None:
    """Compare a slice of everything; None where there is nothing to compare, or the index cannot be used now.

    At the end, and when rows were missed, the two files are checked as such: a mirror that does not hold its rows is
    forgotten before anything is sent because of it. Errors: as `numbers`.
    """
    mirror = _mirror(lane)
    if mirror is None or not lane.database.exists():
        return None
    try:
        found = audit.go_on(mirror, deadline=deadline)
    except IndexFileError as error:
        lane.index.problem.tell(str(error))
        return None
    if found.missed or found.is_last:
        _check_mirror(lane, mirror, deadline)
        database.quick_check(lane.database, deadline=deadline)
    return found


def _check_mirror(lane: Lane, mirror: MirrorFile, deadline: Deadline) -> None:
    try:
        with closing(MemoryFile(mirror.path, deadline=deadline)) as memory:
            memory.check()
    except (OtherMemoryError, DatabaseCorruptError) as error:
        damage = str(error)
    else:
        return
    log.error("mirror is damaged, the next pull makes a new one", project=lane.project, reason=damage)
    lane.mirror.forget()


def turn(lane: Lane, *, deadline: Deadline) -> int | None:
    """Return where the index stands before the live database is copied or compared; `moved` takes it."""
    try:
        return lane.index.catch_up(_mirror(lane), deadline=deadline).turn
    except IndexFileError as error:
        lane.index.problem.tell(str(error))
        return None


def moved(lane: Lane, sha256: str, keys: Keys, *, since: int | None) -> None:
    """Note that the mirror is another one, which differs from the live database under `keys` only, as of `since`."""
    if since is None:
        return
    try:
        lane.index.moved(sha256, keys, turn=since)
    except IndexFileError as error:
        lane.index.problem.tell(str(error))


class Comparing:
    """A merge that compares the live database with `sha256`, the next mirror, and tells the index what it finds."""

    def __init__(self, lane: Lane, sha256: str) -> None:
        self._lane, self._sha256 = lane, sha256
        self._since: int | None = None
        self._keys: Keys | None = None

    def begin(self, deadline: Deadline) -> None:
        """Note where the index stands before the merge compares."""
        self._since = turn(self._lane, deadline=deadline)

    def found(self, keys: Keys) -> None:
        """Note the keys under which the two differ."""
        self._keys = keys

    def moved(self) -> None:
        """Note that what was compared is the mirror now; what was not compared is found out when it is needed."""
        if self._keys is not None:
            moved(self._lane, self._sha256, self._keys, since=self._since)


def _open_rows(lane: Lane, mirror: MirrorFile, standing: Standing, deadline: Deadline) -> OpenRows:
    found = collect.collect_open(lane.database, mirror.path, standing.open, journal=lane.journal, deadline=deadline)
    if found.equal:
        lane.index.settled(found.equal, turn=standing.turn)
    return found


def _mirror(lane: Lane) -> MirrorFile | None:
    position, path = lane.mirror.position(), lane.mirror.path()
    return None if position is None or path is None else MirrorFile(position.sha256, path)
