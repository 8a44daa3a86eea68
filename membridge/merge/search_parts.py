"""A search index (FTS5) of the parts that were made in files of their own, each of other rows.

FTS5 keeps an index as segments, which it reads together; that is how it takes in what is written later. A part is one
segment, and its pages stay as they are. Only what lists the segments is written anew: the structure, and the averages,
which are sums. The format is that of the opening comments of SQLite's `fts5_index.c`; a part that is not of that form
is not taken. What was joined is asked for a word of each part before it counts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import apsw

from membridge.claudemem.sql import Connection
from membridge.claudemem.tables import quoted
from membridge.merge.search_index import SearchIndex

#: The numbers of two records among the pages of the segments.
_AVERAGES, _STRUCTURE = 1, 10
#: Bits of a page's number behind the segment's.
_SEGMENT = 37
#: What the structure of an index has that forgets rows by tombstones, which claude-mem's have not.
_OTHER_FORM = b"\xff\x00\x00\x01"
#: Bytes of the structure before its numbers, and of a number that is not read here.
_COOKIE, _TOO_LONG = 4, 9


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of an index: its segment, if it has any word, as number, first and last page, and where it stands."""

    schema: str
    cookie: bytes
    written: int
    level: int
    segment: tuple[int, int, int] | None
    averages: tuple[int, ...]


class Joined:
    """An index of the database that parts make up, which attached files have; it is empty before the first."""

    def __init__(self, connection: Connection, index: SearchIndex) -> None:
        self._connection, self._index = connection, index
        self._parts: list[_Part] = []
        self._has_all = True
        for kind in ("data", "idx", "docsize"):
            connection.run(f"DELETE FROM main.{quoted(f'{index.name}_{kind}')}")  # noqa: S608 - quoted

    def take(self, schema: str) -> None:
        """Copy a part, which is one segment; one of another form is left out, and the index is not whole then."""
        try:
            part = _part(self._connection, schema, self._index)
            _copy(self._connection, part, self._index, number=len(self._parts) + 1)
            self._parts.append(part)
        except (ValueError, StopIteration, apsw.CorruptError):
            self._has_all = False

    def finish(self, *, rows: int) -> bool:
        """Write what lists the parts; return whether this is the index of `rows` rows, or has to be rebuilt."""
        try:
            _write_records(self._connection, self._parts, self._index)
            return self._has_all and _is_whole(self._connection, self._parts, self._index, rows)
        except (ValueError, apsw.CorruptError):
            return False


def _part(connection: Connection, schema: str, index: SearchIndex) -> _Part:
    """Return what a part is. Raises ValueError for what is not one segment."""
    structure = _record(connection, schema, index, _STRUCTURE)
    if structure[_COOKIE:].startswith(_OTHER_FORM):
        raise ValueError("an index with tombstones")
    numbers = _numbers(structure[_COOKIE:])
    levels, count, written = next(numbers), next(numbers), next(numbers)
    found: list[tuple[int, tuple[int, int, int]]] = []
    for level in range(levels):
        merging, here = next(numbers), next(numbers)
        if merging:
            raise ValueError("an index that is being merged")
        found += [(level, (next(numbers), next(numbers), next(numbers))) for _ in range(here)]
    if len(found) != count or count > 1 or next(numbers, None) is not None:
        raise ValueError("an index of several segments")
    level, segment = found[0] if found else (0, None)
    averages = tuple(_numbers(_record(connection, schema, index, _AVERAGES)))
    if averages and len(averages) != 1 + len(index.columns):
        raise ValueError("an index of other columns")
    return _Part(schema, structure[:_COOKIE], written, level, segment, averages)


def _copy(connection: Connection, part: _Part, index: SearchIndex, *, number: int) -> None:
    """Copy a part as the segment `number`."""
    data, terms, sizes = (quoted(f"{index.name}_{kind}") for kind in ("data", "idx", "docsize"))
    connection.run(f"INSERT INTO main.{sizes} SELECT * FROM {part.schema}.{sizes}")  # noqa: S608 - quoted
    if part.segment is None:
        return
    known = part.segment[0]
    begin, shift = known << _SEGMENT, (number - known) << _SEGMENT
    connection.run(
        f"INSERT INTO main.{data} SELECT id + ?, block FROM {part.schema}.{data} WHERE id >= ? AND id < ?",  # noqa: S608 - quoted
        (shift, begin, begin + (1 << _SEGMENT)),
    )
    connection.run(
        f"INSERT INTO main.{terms} SELECT ?, term, pgno FROM {part.schema}.{terms} WHERE segid = ?",  # noqa: S608 - quoted
        (number, known),
    )


def _write_records(connection: Connection, parts: Sequence[_Part], index: SearchIndex) -> None:
    """Write what lists the segments, and how many rows and words they have."""
    segments = [(number, *part.segment[1:]) for number, part in enumerate(parts, 1) if part.segment is not None]
    # A level above that of the parts: two segments on theirs would be merged sooner than one.
    level = max((part.level for part in parts), default=0) + 1
    numbers = [level + 1, len(segments), sum(part.written for part in parts), *[0, 0] * level, 0, len(segments)]
    numbers += [number for segment in segments for number in segment]
    averages = [sum(column) for column in zip(*(part.averages for part in parts if part.averages), strict=True)]
    cookie = parts[0].cookie if parts else bytes(_COOKIE)
    for number, record in {_STRUCTURE: cookie + _written(numbers), _AVERAGES: _written(averages)}.items():
        connection.run(f"INSERT INTO main.{quoted(f'{index.name}_data')} VALUES (?, ?)", (number, record))  # noqa: S608 - quoted


def _is_whole(connection: Connection, parts: Sequence[_Part], index: SearchIndex, rows: int) -> bool:
    """Whether the index has as many rows as it should, and the first word of each part as often as the parts."""
    if connection.number(f"SELECT count(*) FROM main.{quoted(f'{index.name}_docsize')}") != rows:  # noqa: S608 - quoted
        return False
    schemas = [part.schema for part in parts]
    names = ("main", *schemas)
    try:
        for schema in names:
            words = f"fts5vocab({schema}, {quoted(index.name)}, row)"
            connection.run(f"CREATE VIRTUAL TABLE temp.membridge_words_{schema} USING {words}")
        firsts = {
            word
            for schema in schemas
            for word in connection.texts(f"SELECT term FROM temp.membridge_words_{schema} LIMIT 1")  # noqa: S608 - ours
        }
        count = "SELECT doc FROM temp.membridge_words_{} WHERE term = ?"
        return all(
            connection.number(count.format("main"), (word,))
            == sum(connection.number(count.format(schema), (word,)) for schema in schemas)
            for word in firsts
        )
    finally:
        for schema in names:
            connection.run(f"DROP TABLE IF EXISTS temp.membridge_words_{schema}")


def _record(connection: Connection, schema: str, index: SearchIndex, number: int) -> bytes:
    row = connection.row(f"SELECT block FROM {schema}.{quoted(f'{index.name}_data')} WHERE id = ?", (number,))  # noqa: S608 - quoted
    if row is None or not isinstance(row[0], bytes):
        raise ValueError(f"an index without record {number}")
    return row[0]


def _numbers(record: bytes) -> Iterator[int]:
    """Yield the numbers that a record has, each in as many bytes as it needs. Raises ValueError."""
    number, length = 0, 0
    for byte in record:
        number, length = number << 7 | byte & 0x7F, length + 1
        if length == _TOO_LONG:
            raise ValueError("a number that is too large")
        if byte < 0x80:
            yield number
            number, length = 0, 0
    if length:
        raise ValueError("half a number")


def _written(numbers: Sequence[int]) -> bytes:
    return b"".join(map(_number, numbers))


def _number(number: int) -> bytes:
    found = bytes([number & 0x7F])
    while number := number >> 7:
        found = bytes([number & 0x7F | 0x80]) + found
    return found
