"""The memory that a database holds, whatever its layout: to compare two machines."""

from pathlib import Path

from membridge.aio.deadline import Deadline
from membridge.claudemem import canonical
from membridge.claudemem.connection import open_live
from membridge.claudemem.tables import KEY_DEFAULTS, expression, quoted, travelling_tables

#: Seconds that reading a whole memory may take.
_PATIENCE = 60.0


def memory_rows(path: Path) -> dict[str, set[bytes]]:
    """Return the travelling rows of each table in their canonical form, as a set.

    A column without a value is not in it, so that databases of different claude-mem versions can be compared.
    """
    found: dict[str, set[bytes]] = {}
    with open_live(path, deadline=Deadline.after(_PATIENCE)) as connection:
        connection.run("BEGIN")
        for table in travelling_tables(connection).values():
            names = [*table.travelling, *(name for name in table.key if name in KEY_DEFAULTS and not table.has(name))]
            columns = ", ".join(expression(table, name, alias="t") for name in names)
            rows = connection.each(f"SELECT {columns} FROM {quoted(table.name)} t")  # noqa: S608 - from the schema, quoted
            found[table.name] = {canonical.encode(table, dict(zip(names, row, strict=True))) for row in rows}
    return found


def memory_sum(path: Path) -> str:
    """Return the sum of all travelling rows, the same wherever they lie and in whatever order they came."""
    return canonical.total(row for rows in memory_rows(path).values() for row in rows).hex()
