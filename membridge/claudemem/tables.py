"""Which of claude-mem's tables and columns are memory, and which columns identify a row.

Read from the schema that is there, so that versions may differ. Rowids never travel: a column that holds one is read
and written as the natural key of the row it points at. In a memory file (`merge.memory_file`) it holds that key itself.
"""

from dataclasses import dataclass

from membridge.claudemem.sql import Connection

#: `PRAGMA application_id` of a memory file.
MEMORY_FILE = 0x4D656D42
#: Columns that belong to the machine: never compared, never sent, never overwritten by an update.
LOCAL_COLUMNS = frozenset(
    {"synced_at", "origin_device_id", "origin_local_id", "sync_rev", "relevance_count", "worker_port"}
)
#: Columns that go along with a new row but are not its content. claude-mem's migration fills `content_hash` with random
#: bytes where it was empty, so that two machines hold different ones for the same memory.
CARRIED_COLUMNS = ("content_hash", "origin_device_id", "origin_local_id")
#: Tables that belong to the machine, and those of claude-mem's server mode, which hold its accounts and keys.
_LOCAL_TABLES = frozenset(
    {"pending_messages", "schema_versions", "api_keys", "audit_log", "teams", "team_members", "projects"}
    | {"server_sessions", "agent_events", "memory_items", "memory_sources", "user", "session", "account"}
    | {"verification"}
)
_LOCAL_PREFIXES = ("sync_", "sqlite_", "auth_")

#: How a row that another one points at by rowid is named across machines.
REFERENCE_KEYS = {
    "sdk_sessions": ("platform_source", "content_session_id"),
    "observations": ("memory_session_id", "created_at_epoch", "title", "type"),
    "session_summaries": ("memory_session_id", "created_at_epoch"),
    "user_prompts": ("content_session_id", "prompt_number"),
}
#: Columns that hold a rowid although the schema does not declare it.
_KNOWN_REFERENCES = {"session_db_id": "sdk_sessions", "observation_id": "observations"}
#: Values for key columns that an older version lacks.
KEY_DEFAULTS = {"platform_source": "claude"}

_CORE = {
    "sdk_sessions": (("platform_source", "content_session_id"), ()),
    "observations": (("memory_session_id", "created_at_epoch"), ("title", "narrative", "text", "subtitle")),
    "session_summaries": (
        ("memory_session_id", "created_at_epoch"),
        ("request", "investigated", "learned", "completed", "next_steps", "notes"),
    ),
    "user_prompts": (("content_session_id", "prompt_number"), ("prompt_text",)),
}


@dataclass(frozen=True, slots=True)
class Column:
    """A column as declared. `filled`: a row that does not name it still gets a value."""

    name: str
    type: str
    not_null: bool
    filled: bool = False


@dataclass(frozen=True, slots=True)
class Reference:
    """What a column that holds a rowid points at: a row of `table`, named by the SQL of its key's parts.

    No parts in a memory file, where the column holds the key itself, as JSON.
    """

    table: str
    key: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """A table that travels. Rows with equal `key` form a bucket; `unique` when a bucket holds at most one row.

    `identity` are the columns of which one at least must be alike for two rows of a bucket to be versions of one
    memory. `travelling` are the columns compared and sent, with rowid columns among them, which `references` maps to
    what they point at.
    """

    name: str
    key: tuple[str, ...]
    unique: bool
    identity: tuple[str, ...]
    columns: dict[str, Column]
    travelling: tuple[str, ...]
    references: dict[str, Reference]
    indexed: frozenset[str]

    def has(self, column: str) -> bool:
        """Whether the table has `column`."""
        return column in self.columns


def travelling_tables(connection: Connection, schema: str = "main") -> dict[str, Table]:
    """Return the tables of a connection's database that are memory, sessions first."""
    names = connection.texts(
        "SELECT name FROM pragma_table_list WHERE schema = ? AND type = 'table' AND NOT wr", (schema,)
    )
    is_named = connection.number(f"PRAGMA {schema}.application_id") == MEMORY_FILE
    found = [
        table
        for name in names
        if not _is_local(name) and (table := _table(connection, schema, name, is_named=is_named))
    ]
    order = {name: number for number, name in enumerate(_CORE)}
    found.sort(key=lambda table: (order.get(table.name, len(order)), table.name))
    return {table.name: table for table in found}


def quoted(name: str) -> str:
    """Return a table's or column's name as SQL."""
    return '"' + name.replace('"', '""') + '"'


def shared_columns(table: Table, other: Table) -> tuple[str, ...]:
    """Return the travelling columns that both versions of a table have, the key's first."""
    common = [name for name in table.travelling if name in other.travelling and name not in table.key]
    return (*table.key, *common)


def expression(table: Table, column: str, *, alias: str, schema: str = "main") -> str:
    """Return the SQL of a travelling column's value: itself, a default, or the natural key behind a rowid."""
    if not table.has(column):
        default = KEY_DEFAULTS.get(column)
        return "NULL" if default is None else f"'{default}'"
    reference = table.references.get(column)
    if reference is None or not reference.key:
        return f"{alias}.{quoted(column)}"
    return (
        f"(SELECT json_array({', '.join(reference.key)}) FROM {schema}.{quoted(reference.table)} target "  # noqa: S608 - names from the schema, quoted
        f"WHERE target.rowid = {alias}.{quoted(column)})"
    )


def _is_local(name: str) -> bool:
    return name in _LOCAL_TABLES or name.startswith(_LOCAL_PREFIXES)


def _table(connection: Connection, schema: str, name: str, *, is_named: bool) -> Table | None:
    columns, rowid = _columns(connection, schema, name)
    references = _references(connection, schema, name, columns, is_named=is_named)
    travelling = tuple(
        column
        for column in columns
        if column != rowid
        and column not in LOCAL_COLUMNS
        and column not in CARRIED_COLUMNS
        and (column not in references or references[column] is not None)
    )
    core = _CORE.get(name)
    plain = frozenset(travelling) - references.keys()
    key = core[0] if core else _natural_key(connection, schema, name, plain)
    if key is None:
        return None
    return Table(
        name=name,
        key=key,
        unique=core is None or name == "sdk_sessions",
        identity=tuple(column for column in (core[1] if core else ()) if column in columns),
        columns=columns,
        travelling=travelling,
        references={column: target for column, target in references.items() if target is not None},
        indexed=_indexed(connection, schema, name),
    )


def _columns(connection: Connection, schema: str, name: str) -> tuple[dict[str, Column], str | None]:
    """Return the columns of a table, and which of them is its rowid."""
    columns: dict[str, Column] = {}
    rowid: str | None = None
    info = connection.rows('SELECT name, type, "notnull", dflt_value, pk FROM pragma_table_info(?, ?)', (name, schema))
    for column, kind, not_null, default, position in info:
        declared = str(kind).upper()
        is_rowid = position == 1 and declared == "INTEGER"
        filled = is_rowid or (default is not None and str(default).upper() != "NULL")
        columns[str(column)] = Column(str(column), declared, not_null=bool(not_null), filled=filled)
        if is_rowid:
            rowid = str(column)
    return columns, rowid


def _references(
    connection: Connection, schema: str, name: str, columns: dict[str, Column], *, is_named: bool
) -> dict[str, Reference | None]:
    """Return the columns that hold a rowid and what they point at; None for a row without a natural key."""
    pointed = {column: target for column, target in _KNOWN_REFERENCES.items() if column in columns}
    keys = connection.rows('SELECT "from", "table", "to" FROM pragma_foreign_key_list(?, ?)', (name, schema))
    pointed |= {str(column): str(target) for column, target, end in keys if end is None or end == "id"}
    if is_named:
        return {column: Reference(target, ()) for column, target in pointed.items()}
    return {column: _reference(connection, schema, target) for column, target in pointed.items()}


def _reference(connection: Connection, schema: str, target: str) -> Reference | None:
    key = REFERENCE_KEYS.get(target)
    present, _ = _columns(connection, schema, target)
    if key is None or not present:
        return None
    return Reference(
        target, tuple(f"target.{quoted(c)}" if c in present else f"'{KEY_DEFAULTS.get(c, '')}'" for c in key)
    )


def _natural_key(connection: Connection, schema: str, name: str, usable: frozenset[str]) -> tuple[str, ...] | None:
    """Return the columns of the first unique index that names a row on any machine."""
    indexes = connection.texts(
        'SELECT name FROM pragma_index_list(?, ?) WHERE "unique" AND NOT partial ORDER BY name', (name, schema)
    )
    for index in indexes:
        # An index over an expression has parts without a name; those are no key.
        columns = [str(row[0]) for row in connection.rows("SELECT name FROM pragma_index_info(?, ?)", (index, schema))]
        if columns and usable.issuperset(columns):
            return tuple(columns)
    return None


def _indexed(connection: Connection, schema: str, name: str) -> frozenset[str]:
    """Return the columns that a full index of the table starts with."""
    return frozenset(
        connection.texts(
            "SELECT info.name FROM pragma_index_list(?, ?) list, pragma_index_info(list.name, ?) info "
            "WHERE info.seqno = 0 AND NOT list.partial",
            (name, schema, schema),
        )
    )
