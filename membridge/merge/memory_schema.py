"""The schema of a memory file: what its own list of tables leads to, and nothing else.

A table has the columns that travel and those that are carried along, without types, so that every value is kept as it
is. A file that came from elsewhere is compared with this before it is used: no trigger, view or expression of somebody
else runs here.
"""

from collections.abc import Iterable, Iterator, Mapping

from membridge.claudemem.sql import Connection
from membridge.claudemem.tables import MEMORY_FILE, REFERENCE_KEYS, quoted
from membridge.merge.row_stream import Origin

#: Version of the file's layout.
VERSION = 1
#: Columns by which rows are looked for, where a table has them.
_INDEXED = ("content_session_id", "memory_session_id", "created_at_epoch")

_STATE = "CREATE TABLE membridge_state (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID"
_TABLES = (
    "CREATE TABLE membridge_tables (name TEXT PRIMARY KEY, rows INTEGER NOT NULL, sum BLOB NOT NULL, "
    "origin BLOB NOT NULL) WITHOUT ROWID"
)


class OtherSchemaError(Exception):
    """A file whose schema is not that of a memory file of this version."""


def create(connection: Connection) -> None:
    """Make an empty database a memory file without tables."""
    connection.run(
        f"BEGIN; PRAGMA application_id = {MEMORY_FILE}; {_STATE}; {_TABLES}; PRAGMA user_version = {VERSION}"
    )
    connection.run("COMMIT")


def create_table(connection: Connection, name: str, origin: Origin) -> None:
    """Make a table, and the index that says what its key is if nothing else does."""
    connection.run(_table(name, origin, (*origin.columns, *origin.carried)))
    if name not in REFERENCE_KEYS:
        connection.run(_key_index(name, origin))


def widen_table(connection: Connection, name: str, known: Origin, origin: Origin) -> None:
    """Add the columns that only `origin` has."""
    for column in (*origin.columns, *origin.carried):
        if column not in known.columns and column not in known.carried:
            connection.run(f"ALTER TABLE {quoted(name)} ADD COLUMN {_declared(origin, column)}")


def create_indexes(connection: Connection, name: str, origin: Origin) -> None:
    """Make the indexes of a table, of one that is filled at once after its rows."""
    for sql in _indexes(name, origin):
        connection.run(sql)


def check(connection: Connection, tables: Mapping[str, Origin]) -> None:
    """Raise OtherSchemaError for a file with another schema than `tables`, its list of tables, lead to."""
    if connection.number("PRAGMA user_version") != VERSION:
        raise OtherSchemaError("a memory file of another version")
    found = sorted(connection.texts("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL"))
    if found != sorted((_STATE, _TABLES, *_of(connection, tables))):
        raise OtherSchemaError("a memory file has another schema than its tables lead to")


def _of(connection: Connection, tables: Mapping[str, Origin]) -> Iterator[str]:
    for name, origin in tables.items():
        # A column that came later stands behind those that are carried along.
        columns = connection.texts("SELECT name FROM pragma_table_xinfo(?)", (name,))
        if sorted(columns) != sorted((*origin.columns, *origin.carried)):
            raise OtherSchemaError(f"a memory file has other columns of {name} than it says")
        yield _table(name, origin, columns)
        yield from _indexes(name, origin)
        if name not in REFERENCE_KEYS:
            yield _key_index(name, origin)


def _table(name: str, origin: Origin, columns: Iterable[str]) -> str:
    return f"CREATE TABLE {quoted(name)} ({', '.join(_declared(origin, column) for column in columns)})"


def _declared(origin: Origin, column: str) -> str:
    target = origin.references.get(column)
    return quoted(column) if target is None else f"{quoted(column)} REFERENCES {quoted(target)}"


def _key_index(name: str, origin: Origin) -> str:
    return f"CREATE UNIQUE INDEX {quoted(f'{name}_key')} ON {quoted(name)} ({', '.join(map(quoted, origin.key))})"


def _indexes(name: str, origin: Origin) -> Iterator[str]:
    if name in REFERENCE_KEYS:
        for column in _INDEXED:
            if column in origin.columns:
                yield f"CREATE INDEX {quoted(f'{name}_{column}')} ON {quoted(name)} ({quoted(column)})"
