"""Record the rows that a transaction writes, before it is committed.

SQLite reports each row that a statement writes, with those that triggers write and sessions that a merge makes. A
transaction that writes a row which the undo record lacks is rolled back; the record is written while the lock is free,
because claude-mem's worker waits for no disk but its own; then the transaction is done again. Killed between the two,
the record holds rows of a transaction that never happened: they are as they were, and undoing it changes nothing.
"""

from collections.abc import Sequence
from typing import Protocol

import apsw

from membridge.claudemem.sql import Connection
from membridge.merge.former import Former, RawRows, RowKey, is_same

#: Rowids that are left free when the worker inserted rows between two tries, doubled each time.
_GAP = 64


class Save(Protocol):
    """What an operation that writes to the live database keeps of the state before."""

    def __call__(self) -> None:
        """Prepare; called once, before the first transaction that writes, and without its lock."""

    def record(self, formers: Sequence[Former]) -> None:
        """Force the former content of rows to the disk. Raises DiskFullError, FileAccessError."""


class Recorder:
    """Records what the transactions of one operation on one connection write; without `save` it only runs them."""

    def __init__(self, connection: Connection, save: Save | None) -> None:
        self._connection, self._save = connection, save
        self._rows = RawRows(connection)
        self._touched: dict[RowKey, None] = {}
        #: Rows of committed transactions, and of the one that is done again.
        self._marks: dict[RowKey, bytes] = {}
        self._pending: dict[RowKey, Former] = {}
        self._lacking: dict[RowKey, bytes] = {}
        self._reserved: dict[str, int] = {}
        self._version = 0
        self._tries = 0
        if save is not None:
            self._listen()

    def begin(self) -> None:
        """Begin a transaction that writes."""
        self._touched.clear()
        self._connection.run("BEGIN IMMEDIATE")
        if self._pending and self._connection.number("PRAGMA data_version") != self._version:
            # Another program wrote since the rows were read.
            self._pending = {
                key: former
                for key, former in self._pending.items()
                if former.again or is_same(self._rows.read(key), former.content)
            }
        for table, last in self._reserved.items():
            # The rows get the rowids that were recorded, whatever the worker inserted meanwhile.
            self._connection.run("UPDATE sqlite_sequence SET seq = ? WHERE name = ? AND seq < ?", (last, table, last))

    def lacks(self) -> bool:
        """Whether the record lacks a row that the transaction has written: it must be rolled back then."""
        self._lacking = {}
        if self._save is None:
            return False
        for key in self._touched:
            mark = self._rows.mark(key)
            known = self._pending.get(key)
            if mark != (known.mark if known is not None else self._marks.get(key)):
                self._lacking[key] = mark
        return bool(self._lacking)

    def record(self) -> None:
        """Record what was lacking; called after the rollback."""
        if self._save is None or not self._lacking:
            return
        marks = {key: former.mark for key, former in self._pending.items()} | self._lacking
        self._connection.run("BEGIN")
        try:
            sequences = self._rows.sequences()
            self._version = self._connection.number("PRAGMA data_version")
            formers = [self._former(key, mark) for key, mark in marks.items()]
        finally:
            self._connection.run("ROLLBACK")
        if self._tries:
            # The worker was faster: leave it room, or it may be faster again and again.
            raced = {former.table for former in formers if former.content is None and not former.again}
            gap = _GAP << min(self._tries, 10)
            overtaken = {table for table in raced if sequences.get(table, 0) > self._reserved.get(table, -1)}
            self._reserved |= {table: sequences[table] + gap for table in overtaken if table in sequences}
        self._tries += 1
        self._save.record(formers)
        self._pending = {former.key: former for former in formers}

    def committed(self) -> None:
        """Take note that the transaction was committed."""
        self._marks |= {key: self._pending[key].mark for key in self._touched if key in self._pending}
        self._pending, self._reserved, self._tries = {}, {}, 0

    def _former(self, key: RowKey, mark: bytes) -> Former:
        if key in self._marks:
            return Former(*key, None, mark, again=True)
        return Former(*key, self._rows.read(key), mark)

    def _listen(self) -> None:
        tables, touched = self._rows.tables(), self._touched

        def note(update: apsw.PreUpdate) -> None:
            table = update.table_name
            if table in tables and update.database_name == "main":
                touched[table, update.rowid] = None
                touched[table, update.rowid_new] = None

        self._connection.apsw.preupdate_hook(note, id="undo")
