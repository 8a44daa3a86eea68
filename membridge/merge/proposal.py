"""Merge a proposal, the rows of a secondary, on the primary; where both changed a row, ours stays."""

import json
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

from membridge.aio.deadline import Deadline
from membridge.claudemem.connection import open_live
from membridge.claudemem.tables import CARRIED_COLUMNS, Table, travelling_tables
from membridge.merge import three_way
from membridge.merge.apply import Bucket, Merger, TableWork, Terms
from membridge.merge.conflicts import Journal
from membridge.merge.recorder import Save
from membridge.merge.report import MergeReport, Source
from membridge.merge.rows import Key, key_of, origin_names, shape_of
from membridge.merge.three_way import Favour, Row, Value
from membridge.merge.write import RowWriter
from schemas.proposal import ProposalBundle, ProposedRow


def merge_proposal(
    live: Path, bundle: ProposalBundle, *, journal: Journal, deadline: Deadline, save: Save | None = None
) -> MergeReport:
    """Merge the rows of `bundle` into `live`. Merging it twice changes nothing.

    `save` keeps what the database was, as in `merge_snapshot`. A row that does not fit is set aside in the journal, the
    rest is merged. Rows of tables that this database lacks are left out: they stay where they are. Errors: the
    database's, DiskFullError, DeadlineExceededError.
    """
    source = Source(node=bundle.node, device_id=bundle.device_id)
    decide = partial(three_way.merge, favour=Favour.OURS)
    terms = Terms(source=source, decide=decide, journal=journal, ours_stays=True, save=save)
    with open_live(live, deadline=deadline) as connection:
        tables = travelling_tables(connection)
        offered = _Offered(bundle.rows, source.device)
        writer = RowWriter(connection, tables, source, offered.session)
        work = [offered.work(table) for table in tables.values() if offered.has(table)]
        return Merger(connection, writer, terms).run(work, live, deadline=deadline)


class _Offered:
    """The rows of a bundle by table and key."""

    def __init__(self, rows: Iterable[ProposedRow], device: str) -> None:
        self._rows: dict[str, list[tuple[Row | None, Row | None]]] = {}
        self._sessions: dict[Value, Row] = {}
        for proposed in rows:
            base = None if proposed.base is None else Row(proposed.base)
            row = _offered(proposed, device)
            self._rows.setdefault(proposed.table, []).append((base, row))
            if proposed.table == "sdk_sessions" and row is not None:
                self._sessions[row.values.get("memory_session_id")] = row

    def has(self, table: Table) -> bool:
        """Whether there are rows of `table`."""
        return table.name in self._rows

    def session(self, memory_id: str) -> Row | None:
        """Return an offered session by its memory id."""
        return self._sessions.get(memory_id)

    def work(self, table: Table) -> TableWork:
        """Return the buckets of a table."""
        buckets: dict[Key, tuple[list[Row], list[Row]]] = {}
        columns: set[str] = set()
        for base, row in self._rows[table.name]:
            for side, one in enumerate((base, row)):
                if one is not None:
                    buckets.setdefault(key_of(table, one.values), ([], []))[side].append(one)
                    columns |= one.values.keys()
        shared = (*table.key, *(c for c in table.travelling if c in columns and c not in table.key))
        return TableWork(table, shape_of(table, shared), len(buckets), _buckets(buckets))


def _buckets(buckets: dict[Key, tuple[list[Row], list[Row]]]) -> Iterator[Bucket]:
    for key, (base, theirs) in buckets.items():
        yield Bucket(key, base, theirs)


def _offered(proposed: ProposedRow, device: str) -> Row | None:
    if proposed.row is None:
        return None
    values: dict[str, Value] = {k: v for k, v in proposed.row.items() if k not in CARRIED_COLUMNS}
    values |= {column: _key_text(key) for column, key in proposed.parents.items()}
    carried: dict[str, Value] = {k: v for k, v in proposed.row.items() if k in CARRIED_COLUMNS}
    names = origin_names(carried, proposed.local_id, device)
    return Row(values, rowid=proposed.local_id, carried=carried, names=names)


def _key_text(key: Sequence[Value]) -> str:
    """Return a row's natural key as SQLite's json_array writes it."""
    return json.dumps(key, separators=(",", ":"), ensure_ascii=False)
