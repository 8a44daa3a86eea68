"""What changed in a memory as a stream of rows: the object of a delta.

Canonical rows, each with its rowid where it came from and what goes along without being content. Before them the sums
of the memory that the delta changes; after them the number and sums of the rows that result, so that a stream that lost
its end or a byte, or is applied to another memory, is found. Columns and tables that this program does not know are in
it like all others.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated

import msgspec
import zstandard

from membridge.claudemem import canonical
from membridge.claudemem.sql import FIRST_ROWID, Connection, Value
from membridge.claudemem.tables import CARRIED_COLUMNS, Table, expression, quoted
from membridge.merge.rows import Reader
from membridge.merge.three_way import Row

#: The first bytes of a stream, its version among them.
MAGIC = b"MBROWS2\n"
#: zstd level: a memory of 50 MiB takes 0.1 s, and higher levels save little.
LEVEL = 3
#: Bytes that are read, compressed and written at once, and that one row may have.
BLOCK, MOST = 1 << 20, 64 << 20

_encoder = msgspec.msgpack.Encoder()


class MalformedStreamError(ValueError):
    """Bytes that are not a stream of rows, or one that is not whole."""


class Schema(msgspec.Struct, frozen=True, array_like=True):
    """What a database of the same version needs besides its rows: the file's settings, and statements in their order.

    `versions` are the rows of `schema_versions`, `sequences` the highest rowid that each table has given out.
    """

    page_size: int
    auto_vacuum: int
    user_version: int
    statements: list[tuple[str, str, str]]
    versions: list[tuple[int, int, str]]
    sequences: dict[str, int]


class Origin(msgspec.Struct, frozen=True, array_like=True):
    """A table where the rows come from: its columns that travel, its key, and what its references point at.

    `carried` are the columns that go along with a row without being its content.
    """

    columns: list[str]
    key: list[str]
    references: dict[str, str]
    carried: list[str] = []

    def with_more(self, other: "Origin") -> "Origin":
        """Return this table with the columns that only the other one has."""
        return Origin(
            [*self.columns, *(name for name in other.columns if name not in self.columns)],
            self.key,
            other.references | self.references,
            [*self.carried, *(name for name in other.carried if name not in self.carried)],
        )


class Link(msgspec.Struct, frozen=True, array_like=True, tag_field="kind", tag="link"):
    """The begin of a delta: the sums of the tables of the memory that it changes, and what is new about its schema.

    `tables` are those with columns of which that memory does not know; `schema` comes with them or is newer.
    """

    sums: dict[str, bytes]
    schema: Schema | None = None
    tables: dict[str, Origin] = {}


class Went(msgspec.Struct, frozen=True, array_like=True, tag_field="kind", tag="went"):
    """A row that is gone: its table, its natural key and its sum."""

    table: str
    key: list[int | float | str | None]
    sum: bytes


class Sent(msgspec.Struct, frozen=True, array_like=True, tag_field="kind", tag="row"):
    """One row: its table, its canonical bytes, its rowid in its own database, and what goes along."""

    table: str
    canonical: bytes
    rowid: int
    carried: dict[str, str | int | float | None] = {}


class Tail(msgspec.Struct, frozen=True, array_like=True, tag_field="kind", tag="tail"):
    """The end: rows and sum of each table of the memory that results, as far as it has rows."""

    rows: dict[str, Annotated[int, msgspec.Meta(ge=0, le=1 << 62)]]
    sums: dict[str, bytes]


Message = Link | Went | Sent | Tail
_decoder = msgspec.msgpack.Decoder(Message)


def encode(messages: Iterable[Message], *, level: int = LEVEL) -> Iterator[bytes]:
    """Yield messages as a compressed stream."""
    compressor = zstandard.ZstdCompressor(level=level, write_checksum=True).compressobj()
    yield MAGIC
    for message in messages:
        raw = _encoder.encode(message)
        if written := compressor.compress(len(raw).to_bytes(4, "little") + raw):
            yield written
    yield compressor.flush()


def decode(chunks: Iterable[bytes]) -> Iterator[Message]:
    """Yield what a stream holds, the end last. Raises MalformedStreamError, also for a stream that is not whole.

    Who takes the rows in compares them with the end.
    """
    tail = None
    for message in _decompressed(chunks):
        if tail is not None:
            raise MalformedStreamError("the stream goes on behind its end")
        if isinstance(message, Tail):
            tail = message
        yield message
    if tail is None:
        raise MalformedStreamError("the stream lacks its end")


def sent_of(table: Table, row: Row) -> Sent:
    """Return a row that a `Reader` read as it travels."""
    return Sent(table.name, canonical.encode(table, row.values), row.rowid or 0, _along(row.carried.items()))


def sent_rows(connection: Connection, table: Table) -> Iterator[Sent]:
    """Yield the rows of a memory file's table as they travel, in the order of their rowids."""
    carried = [column for column in CARRIED_COLUMNS if table.has(column)]
    for rowid, row, along in _packed_rows(connection, table, carried):
        yield Sent(table.name, row, rowid, _along(zip(carried, along, strict=True)))


def canonical_rows(connection: Connection, table: Table) -> Iterator[bytes]:
    """Yield the canonical bytes of what `sent_rows` yields."""
    for _, row, _ in _packed_rows(connection, table, []):
        yield row


def _packed_rows(
    connection: Connection, table: Table, carried: list[str]
) -> Iterator[tuple[int, bytes, Sequence[Value]]]:
    """Yield rowid, canonical bytes and carried columns of rows."""
    columns = sorted({*table.travelling, *table.key})
    values = ", ".join(expression(table, column, alias="t") for column in (*columns, *carried))
    pack, split = canonical.packer(table, columns), len(columns)
    sql = f"SELECT {values}, t.rowid FROM {quoted(table.name)} t WHERE t.rowid >= ? ORDER BY t.rowid"  # noqa: S608 - names from the schema, quoted
    first = FIRST_ROWID
    while True:
        try:
            for row in connection.each(sql, (first,)):
                rowid = row[-1]
                number = rowid if isinstance(rowid, int) else 0
                first = number + 1
                yield number, pack(row), row[split:-1]
        except UnicodeDecodeError:
            # In the row that comes next: read by itself, its text as bytes.
            odd = next(iter(Reader(connection, table).rows_from(first, 1)), None)
            if odd is None:
                return
            first = (odd.rowid or 0) + 1
            # A key that is not text names nothing on any machine.
            if not any(isinstance(odd.values.get(column), bytes) for column in table.key):
                yield odd.rowid or 0, canonical.encode(table, odd.values), [odd.carried.get(name) for name in carried]
        else:
            return


def origin_of(table: Table) -> Origin:
    """Return what a full or a delta says of a table."""
    references = {column: reference.table for column, reference in table.references.items()}
    carried = [column for column in CARRIED_COLUMNS if table.has(column)]
    return Origin(list(table.travelling), list(table.key), references, carried)


def _along(carried: Iterable[tuple[str, Value]]) -> dict[str, str | int | float | None]:
    return {name: value for name, value in carried if value is not None and not isinstance(value, bytes)}


def schema_of(connection: Connection, schema: str = "main") -> Schema:
    """Return what another database of a live one's version needs besides the rows."""
    kinds = f"SELECT type, name, sql FROM {schema}.sqlite_schema WHERE sql IS NOT NULL ORDER BY rowid"  # noqa: S608 - our own schema names
    counted = connection.exists(f"SELECT 1 FROM {schema}.sqlite_schema WHERE name = 'sqlite_sequence'")  # noqa: S608 - as above
    sequences = connection.rows(f"SELECT name, seq FROM {schema}.sqlite_sequence") if counted else []  # noqa: S608 - as above
    versions = connection.rows(f"SELECT id, version, applied_at FROM {schema}.schema_versions ORDER BY id")  # noqa: S608 - as above
    return Schema(
        page_size=connection.number(f"PRAGMA {schema}.page_size"),
        auto_vacuum=connection.number(f"PRAGMA {schema}.auto_vacuum"),
        user_version=connection.number(f"PRAGMA {schema}.user_version"),
        statements=[(str(kind), str(name), str(sql)) for kind, name, sql in connection.each(kinds)],
        versions=[
            (number, version, str(at))
            for number, version, at in versions
            if isinstance(number, int) and isinstance(version, int)
        ],
        sequences={str(name): seq for name, seq in sequences if isinstance(seq, int)},
    )


def _decompressed(chunks: Iterable[bytes]) -> Iterator[Message]:
    buffer, begun = bytearray(), False
    decompressor = zstandard.ZstdDecompressor().decompressobj()
    for chunk in _without_magic(chunks):
        try:
            buffer += decompressor.decompress(chunk)
        except zstandard.ZstdError as error:
            raise MalformedStreamError(f"the stream does not decompress: {error}") from error
        at = 0
        while (end := _end_of(buffer, at)) <= len(buffer):
            message = _decoded(bytes(buffer[at + 4 : end]))
            if isinstance(message, Link) is begun:
                raise MalformedStreamError("the stream does not begin as it should")
            begun, at = True, end
            yield message
        del buffer[:at]
    if buffer or not decompressor.eof:
        raise MalformedStreamError("the stream is cut off")


def _without_magic(chunks: Iterable[bytes]) -> Iterator[bytes]:
    head, rest = b"", iter(chunks)
    for chunk in rest:
        head += chunk
        if len(head) >= len(MAGIC):
            break
    if not head.startswith(MAGIC):
        raise MalformedStreamError("not a stream of rows")
    yield head[len(MAGIC) :]
    yield from rest


def _end_of(buffer: bytearray, at: int) -> int:
    size = int.from_bytes(buffer[at : at + 4], "little") if len(buffer) - at >= 4 else MOST
    if size > MOST:
        raise MalformedStreamError(f"a row has {size} bytes")
    return at + 4 + size


def _decoded(raw: bytes) -> Message:
    try:
        return _decoder.decode(raw)
    except msgspec.DecodeError as error:
        raise MalformedStreamError(f"a row cannot be read: {error}") from error
