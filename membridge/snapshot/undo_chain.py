"""The chain of undo records: each one leads from the state after a write back to the state before it.

A backup is restored from the live database, or from the nearest newer full copy, by the records between. The chain ends
where the database became another one: replaced as a whole, installed anew, or copied back by a person.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from membridge.aio.deadline import Deadline
from membridge.claudemem.connection import open_live
from membridge.errors import DatabaseCorruptError, FileAccessError
from membridge.merge import former, undo_record
from membridge.merge.former import Former, RawRows, RowKey
from membridge.merge.undo_record import Facts, Header
from membridge.snapshot.backup_files import BackupFiles


@dataclass(frozen=True, slots=True)
class Way:
    """How to a backup's state: from a full copy, or from the live database if `base` is None, by rows taken back.

    `writes` is how many writes are taken back.
    """

    base: Path | None
    rows: Mapping[RowKey, Former]
    writes: int


def facts_of(live: Path, *, deadline: Deadline) -> Facts:
    """Return what tells the live database from another one in its place. Errors: the database's."""
    with open_live(live, deadline=deadline) as connection:
        connection.run("BEGIN")
        born = connection.row("SELECT applied_at FROM schema_versions ORDER BY id LIMIT 1")
        return Facts(
            born=str(born[0]) if born else "",
            sequences=RawRows(connection).sequences(),
        )


def header_of(backup: BackupFiles) -> Header | None:
    """Return the header of a backup's record, None if it has none that can be read. Raises FileAccessError."""
    if not backup.undo:
        return None
    try:
        return undo_record.outline(backup.undo_path).header
    except DatabaseCorruptError:
        return None


def rows_of(backup: BackupFiles) -> int:
    """Return how many rows a backup's record holds, 0 for one that cannot be read."""
    if not backup.undo:
        return 0
    try:
        return undo_record.outline(backup.undo_path).rows
    except (DatabaseCorruptError, FileAccessError):
        return 0


def settle(live: Path, backup: BackupFiles, facts: Facts, *, deadline: Deadline) -> bool:
    """Remove from the newest record the rows of a transaction that was never committed; return whether there were any.

    What claude-mem inserts later under a rowid in it could be taken for a row of ours. Errors: the database's.
    """
    header = header_of(backup)
    if header is None or not facts.continues(header.facts):
        return False
    from membridge.merge import put_back  # noqa: PLC0415 - rarely needed: a node keeps what it loads

    last = undo_record.last(backup.undo_path)
    if not last or not put_back.is_undone(live, last, deadline=deadline):
        return False
    undo_record.without_last(backup.undo_path)
    return True


def goes_on_from(live: Path, newest: BackupFiles, facts: Facts, *, deadline: Deadline) -> bool:
    """Whether the live database is the one that the newest record was made of. Errors: the database's.

    The file may have been moved, or copied to another disk; the rows that were written last must be there.
    """
    header = header_of(newest)
    if header is None or header.closed or not facts.continues(header.facts):
        return False
    from membridge.merge import put_back  # noqa: PLC0415 - rarely needed: a node keeps what it loads

    return put_back.fits(live, undo_record.last(newest.undo_path), deadline=deadline)


def leads_on(older: BackupFiles, newer: BackupFiles) -> bool:
    """Whether the record of `older` leads from the state of `newer` back to that of `older`."""
    before, after = header_of(older), header_of(newer)
    return before is not None and after is not None and after.previous in {older.id, before.last} - {""}


def way_to(wanted: BackupFiles, backups: Sequence[BackupFiles], live: Path | None, *, deadline: Deadline) -> Way | None:
    """Return the way to the state of a backup: its full copy, else from `live`, else from the nearest newer full copy.

    `backups` are those made here, oldest first; `live` is None for a database that cannot be read. None: there is no
    way. Errors: DatabaseCorruptError for a damaged record, the database's.
    """
    if wanted.full or not wanted.reason:
        return Way(wanted.full_path, {}, 0)
    chain = [wanted]
    for newer in backups[backups.index(wanted) + 1 :]:
        if not leads_on(chain[-1], newer):
            live = None
            break
        chain.append(newer)
    if live is not None:
        rows = _from_live(chain, live, deadline)
        if rows is not None:
            return Way(None, rows, len(chain))
    for place, newer in enumerate(chain):
        if newer.full:
            return Way(newer.full_path, former.combined(map(_formers, chain[:place])), place)
    return None


def recorded(backup: BackupFiles) -> dict[RowKey, Former]:
    """Return the rows of a backup's record. Raises DatabaseCorruptError, FileAccessError."""
    return former.of_one_write(_formers(backup))


def join(older: BackupFiles, newer: Sequence[BackupFiles]) -> None:
    """Take the records of the next newer backups into that of `older`, which then leads over them.

    Killed before these are deleted, nothing is wrong: rows that are taken back twice end as the oldest record says.
    Errors: DatabaseCorruptError, DiskFullError, FileAccessError.
    """
    header, blocks = undo_record.read(older.undo_path)
    records = [_flat(blocks)]
    last, closed = header.last, header.closed
    for one in newer:
        after, blocks = undo_record.read(one.undo_path)
        records.append(_flat(blocks))
        last, closed = after.last or one.id, after.closed
    joined = Header(facts=header.facts, previous=header.previous, last=last, closed=closed)
    undo_record.write(older.undo_path, joined, list(former.combined(records).values()))


def _from_live(chain: Sequence[BackupFiles], live: Path, deadline: Deadline) -> dict[RowKey, Former] | None:
    *older, newest = chain
    header, blocks = undo_record.read(newest.undo_path)
    facts = facts_of(live, deadline=deadline)
    if header.closed or not facts.continues(header.facts):
        return None
    from membridge.merge import put_back  # noqa: PLC0415 - rarely needed: a node keeps what it loads

    if blocks and put_back.is_undone(live, blocks[-1], deadline=deadline):
        # Its transaction was never committed, or all of it was taken back.
        blocks.pop()
    if blocks and not put_back.fits(live, blocks[-1], deadline=deadline):
        return None
    return former.combined([*map(_formers, older), _flat(blocks)])


def _formers(backup: BackupFiles) -> list[Former]:
    return _flat(undo_record.read(backup.undo_path)[1])


def _flat(blocks: Sequence[Sequence[Former]]) -> list[Former]:
    return [entry for block in blocks for entry in block]
