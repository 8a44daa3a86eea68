"""The memory that a database holds, whatever its layout: to compare two machines."""

import hashlib
from pathlib import Path

from membridge.aio.deadline import Deadline
from membridge.claudemem.connection import open_live
from membridge.claudemem.tables import KEY_DEFAULTS, expression, quoted, travelling_tables

#: Seconds that reading a whole memory may take.
_PATIENCE = 60.0


def memory_rows(path: Path) -> dict[str, set[str]]:
    """Return the travelling rows of each table, each as the sorted SQL literals of its columns that are not NULL.

    Columns without a value are left out, so that databases of different claude-mem versions can be compared.
    """
    found: dict[str, set[str]] = {}
    with open_live(path, deadline=Deadline.after(_PATIENCE)) as connection:
        connection.run("BEGIN")
        for table in travelling_tables(connection).values():
            names = sorted({*table.travelling, *(column for column in table.key if column in KEY_DEFAULTS)})
            columns = ", ".join(f"quote({expression(table, name, alias='t')})" for name in names)
            rows = connection.each(f"SELECT {columns} FROM {quoted(table.name)} t")  # noqa: S608 - from the schema, quoted
            found[table.name] = {
                ", ".join(f"{name}={value}" for name, value in zip(names, row, strict=True) if value != "NULL")
                for row in rows
            }
    return found


def memory_digest(path: Path) -> str:
    """Return a digest of all travelling rows, the same wherever they lie and in whatever order they came."""
    digest = hashlib.sha256()
    for name, rows in sorted(memory_rows(path).items()):
        if rows:
            digest.update(f"{name}\0{len(rows)}\0".encode())
            for row in sorted(rows):
                digest.update(f"{row}\0".encode())
    return digest.hexdigest()
