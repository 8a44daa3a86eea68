"""The canonical form of a row: the same bytes on every machine for the same memory; docs/reference/rows.md.

What travels and what a row is known by is read from `tables`; this module only writes it down. Sums of rows are
additive, so that one row's change changes a table's sum without a look at the others. They tell of damage, not of
attackers.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence

import msgspec

from membridge.claudemem.sql import Value
from membridge.claudemem.tables import Table

#: Version of the form, the first part of every row.
VERSION = 1
#: Bytes of a row's sum and of a table's.
SUM_BYTES = 32

#: Whole numbers up to here are the same as SQLite's integers and reals.
_EXACT = 1 << 53
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[int, str, dict[str, object]]).decode


def encode(table: Table, values: Mapping[str, Value]) -> bytes:
    """Return the canonical bytes of a row: its travelling columns by name, without those that are NULL.

    `values` has a column that holds a rowid as `tables.expression` reads it: the natural key behind it, as JSON.
    """
    content = {name: _column(table, name, value) for name, value in sorted(values.items()) if value is not None}
    return _encode((VERSION, table.name, content))


def packer(table: Table, columns: Sequence[str]) -> Callable[[Sequence[Value]], bytes]:
    """Return what `encode` is for rows that begin with the values of `columns`, which are in alphabetical order.

    The same bytes, several times as fast.
    """
    references = [column for column in columns if column in table.references]
    name = table.name

    def pack(values: Sequence[Value]) -> bytes:
        content = {column: value for column, value in zip(columns, values, strict=False) if value is not None}
        if float in map(type, values):
            content = {column: _plain(value) for column, value in content.items()}
        keys = {column: _column(table, column, content[column]) for column in references if column in content}
        return _encode((VERSION, name, content | keys if keys else content))

    return pack


def decode(row: bytes) -> tuple[str, dict[str, object]]:
    """Return the table and the columns of a canonical row. Raises ValueError for what is not one."""
    try:
        version, table, content = _decode(row)
    except msgspec.MsgspecError as error:
        raise ValueError(f"not a canonical row: {error}") from error
    if version != VERSION:
        raise ValueError(f"a row of version {version}, and only {VERSION} is known")
    return table, content


def total(rows: Iterable[bytes]) -> bytes:
    """Return the sum of a set of rows in any order."""
    return stored(sum(map(row_sum, rows)))


def row_sum(row: bytes) -> int:
    """Return the sum of one row: its blake2b-256 digest as a number. Sums of rows add up."""
    return int.from_bytes(hashlib.blake2b(row, digest_size=SUM_BYTES).digest(), "big")


def stored(added: int) -> bytes:
    """Return sums that were added up as they are stored: modulo 2^256."""
    return (added % (1 << (8 * SUM_BYTES))).to_bytes(SUM_BYTES, "big")


def _column(table: Table, name: str, value: Value) -> Value | list[Value]:
    if name in table.references and isinstance(value, str):
        parts: list[Value] = json.loads(value)
        return [_plain(part) for part in parts]
    return _plain(value)


def _plain(value: Value) -> Value:
    # SQLite takes 1 and 1.0 for the same, and so does every comparison of a merge.
    if isinstance(value, float) and value.is_integer() and -_EXACT <= value <= _EXACT:
        return int(value)
    return value
