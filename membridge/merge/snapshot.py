"""Merge a snapshot into the live database: base is the old mirror, theirs the new one, ours the live database."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from membridge.aio.deadline import Deadline
from membridge.claudemem.connection import open_frozen, open_live, open_to_compare
from membridge.claudemem.sql import Connection
from membridge.claudemem.tables import Table, shared_columns, travelling_tables
from membridge.merge import three_way
from membridge.merge.apply import Bucket, Merger, TableWork, Terms
from membridge.merge.conflicts import Journal
from membridge.merge.difference import difference
from membridge.merge.recorder import Save
from membridge.merge.report import MergeReport, Source
from membridge.merge.rows import Key, Reader, shape_of
from membridge.merge.three_way import Decision, Row, Shape
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


def replace_snapshot(
    mirror: Path,
    live: Path,
    *,
    source: Source,
    journal: Journal,
    deadline: Deadline,
    save: Save | None = None,
) -> MergeReport:
    """Make the memory of `live` exactly that of `mirror`, safely beside a running worker.

    Row by row through the same short transactions as a merge, not page by page: rows that are equal keep their rowid,
    their sync state and their origin, the machine-local tables and the sequences are not touched, and page sizes and
    claude-mem versions may differ. A session that pending work refers to stays. Errors and `save` as in
    `merge_snapshot`.
    """
    terms = Terms(source=source, decide=_theirs_alone, journal=journal, save=save)
    return merge_files(live, mirror, base=None, terms=terms, deadline=deadline)


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
            found = {one.ours.name: one.keys(both) for one in difference(both) if not one.is_empty}
        if compared is not None:
            compared(found)
        other = stack.enter_context(open_frozen(theirs, deadline=deadline))
        older = stack.enter_context(open_frozen(base, deadline=deadline)) if base is not None else None
        return merge_keys(live, other, older, found, terms=terms, deadline=deadline, progress=progress)


def merge_keys(  # noqa: PLR0913 - as `merge_files`
    live: Path,
    theirs: Connection,
    base: Connection | None,
    keys: Mapping[str, Collection[Key]],
    *,
    terms: Terms,
    deadline: Deadline,
    progress: Callable[[int, int], None] | None = None,
) -> MergeReport:
    """Merge what `theirs` has under `keys` into `live`, by the rule in `terms`; errors as `merge_snapshot`."""
    with open_live(live, deadline=deadline) as connection:
        ours, their_tables = travelling_tables(connection), travelling_tables(theirs)
        bases = travelling_tables(base) if base is not None else {}
        writer = RowWriter(connection, ours, terms.source, session_finder(theirs))
        work = [
            TableWork(
                table=table,
                shape=shape_of(table, shared_columns(table, their_tables[name])),
                size=len(keys[name]),
                buckets=_buckets(
                    keys[name],
                    Reader(theirs, their_tables[name], device=terms.source.device),
                    Reader(base, bases[name]) if base is not None and name in bases else None,
                ),
            )
            for name, table in ours.items()
            if name in their_tables and keys.get(name)
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


def _buckets(keys: Collection[Key], theirs: Reader, base: Reader | None) -> Iterator[Bucket]:
    for key in keys:
        yield Bucket(key, base.bucket(key) if base is not None else (), theirs.bucket(key))


def _theirs_alone(base: Sequence[Row], theirs: Sequence[Row], ours: Sequence[Row], shape: Shape) -> Decision:
    del base
    return three_way.replace(theirs, ours, shape)
