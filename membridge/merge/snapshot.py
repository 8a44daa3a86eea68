"""Merge a snapshot into the live database: base is the old mirror, theirs the new one, ours the live database."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from membridge.aio.deadline import Deadline
from membridge.claudemem.connection import open_frozen, open_live, open_to_compare
from membridge.claudemem.sql import Connection
from membridge.claudemem.tables import Table, travelling_tables
from membridge.merge import three_way
from membridge.merge.apply import Bucket, Merger, TableWork, Terms
from membridge.merge.conflicts import Journal
from membridge.merge.difference import difference
from membridge.merge.recorder import Save
from membridge.merge.report import MergeReport, Source
from membridge.merge.rows import Key, Reader, shape_of
from membridge.merge.three_way import Row
from membridge.merge.write import RowWriter

#: Gets the keys of each table under which two databases differ.
Compared = Callable[[Mapping[str, Sequence[Key]]], None]


def merge_snapshot(  # noqa: PLR0913 - three databases, and what every long work takes
    live: Path,
    *,
    base: Path | None,
    theirs: Path,
    source: Source,
    journal: Journal,
    deadline: Deadline,
    progress: Callable[[int, int], None] | None = None,
    save: Save | None = None,
    compared: Compared | None = None,
) -> MergeReport:
    """Merge the snapshot `theirs` into `live`; where both changed a row since `base`, theirs stays.

    `base` and `theirs` are files that no program writes. `save` is called once before the first write to
    `live`; before that `compared` gets the keys under which the two differ. Transactions are short: a merge that fails
    half-way has changed whole rows only, and the next one goes on.
    Errors: the database's, DiskFullError, DeadlineExceededError.
    """
    terms = Terms(source=source, decide=three_way.merge, journal=journal, save=save)
    return merge_files(live, theirs, base=base, terms=terms, deadline=deadline, progress=progress, compared=compared)


def restore_snapshot(  # noqa: PLR0913 - three databases, and what every long work takes
    live: Path,
    *,
    newest: Path | None,
    target: Path,
    source: Source,
    journal: Journal,
    deadline: Deadline,
    save: Save | None = None,
) -> MergeReport:
    """Make `live` what the earlier snapshot `target` is; rows that neither it nor the `newest` snapshot has stay.

    Errors, transactions and `save` as in `merge_snapshot`; run again after a failure it ends in the same state.
    """
    terms = Terms(source=source, decide=three_way.restore, journal=journal, save=save)
    return merge_files(live, target, base=newest, terms=terms, deadline=deadline)


def merge_files(  # noqa: PLR0913 - three databases, and what every long work takes
    live: Path,
    theirs: Path,
    *,
    base: Path | None,
    terms: Terms,
    deadline: Deadline,
    progress: Callable[[int, int], None] | None = None,
    compared: Compared | None = None,
) -> MergeReport:
    """Merge `theirs` into `live` by the rule in `terms`."""
    with ExitStack() as stack:
        with open_to_compare(live, theirs, deadline=deadline) as both:
            found = [
                (one.ours, one.theirs, one.columns, one.keys(both)) for one in difference(both) if not one.is_empty
            ]
        if compared is not None:
            compared({ours.name: keys for ours, _, _, keys in found})
        other = stack.enter_context(open_frozen(theirs, deadline=deadline))
        older = stack.enter_context(open_frozen(base, deadline=deadline)) if base is not None else None
        bases = travelling_tables(older) if older is not None else {}
        connection = stack.enter_context(open_live(live, deadline=deadline))
        writer = RowWriter(connection, travelling_tables(connection), terms.source, session_finder(other))
        work = [
            TableWork(
                table=ours,
                shape=shape_of(ours, columns),
                size=len(keys),
                buckets=_buckets(
                    keys,
                    Reader(other, their_table, device=terms.source.device),
                    Reader(older, bases[ours.name]) if older is not None and ours.name in bases else None,
                ),
            )
            for ours, their_table, columns, keys in found
        ]
        return Merger(connection, writer, terms).run(work, live, deadline=deadline, progress=progress)


def session_finder(connection: Connection) -> Callable[[str], Row | None]:
    """Return a function that finds a session by its memory id."""
    table: Table = travelling_tables(connection)["sdk_sessions"]
    reader = Reader(connection, table)

    def find(memory_id: str) -> Row | None:
        for rowid in connection.numbers("SELECT rowid FROM sdk_sessions WHERE memory_session_id = ?", (memory_id,)):
            return reader.row(rowid)
        return None

    return find


def _buckets(keys: list[Key], theirs: Reader, base: Reader | None) -> Iterator[Bucket]:
    for key in keys:
        yield Bucket(key, base.bucket(key) if base is not None else (), theirs.bucket(key))
