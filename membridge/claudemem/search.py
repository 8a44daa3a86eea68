"""Single memories of a live database, found by their words and by filters; reads only.

claude-mem keeps a full-text index of each kind. An older database without one is searched by comparing.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from membridge.aio.deadline import Deadline
from membridge.claudemem.connection import open_live
from membridge.claudemem.sql import Connection, Value
from membridge.claudemem.tables import quoted
from membridge.errors import InvalidRequestError, NotFoundError
from membridge.system import clock
from schemas.memories import MemoriesReply, MemoriesRequest, Memory, MemoryFilter, MemoryKind, MemoryOrder, MemoryReply

#: Characters of a title, and words around a hit.
TITLE, AROUND = 200, 24
#: What the index puts around a hit, and between two pieces of a text.
_BEGIN, _END, _CUT = "\x02", "\x03", "…"
#: Words of a search at most.
WORDS = 32


@dataclass(frozen=True, slots=True)
class _Shape:
    """Where memories of a kind are: their table, the columns of title and text, and those that identify a row."""

    table: str
    title: tuple[str, ...]
    texts: tuple[str, ...]
    identity: tuple[str, ...]
    type: str | None = None
    project: str = "t.project"


_SHAPES: Mapping[MemoryKind, _Shape] = {
    MemoryKind.OBSERVATION: _Shape(
        "observations",
        ("title", "subtitle", "text"),
        ("title", "subtitle", "narrative", "text", "facts", "concepts"),
        ("memory_session_id", "title", "narrative", "text"),
        type="type",
    ),
    MemoryKind.SUMMARY: _Shape(
        "session_summaries",
        ("request", "completed"),
        ("request", "investigated", "learned", "completed", "next_steps", "notes"),
        ("memory_session_id", "request", "learned"),
    ),
    MemoryKind.PROMPT: _Shape(
        "user_prompts",
        ("prompt_text",),
        ("prompt_text",),
        ("content_session_id", "prompt_number", "prompt_text"),
        project="(SELECT s.project FROM sdk_sessions s WHERE s.content_session_id = t.content_session_id LIMIT 1)",
    ),
}
_ORDER = {kind: number for number, kind in enumerate(_SHAPES)}


@dataclass(frozen=True, slots=True)
class Found:
    """A memory and its row in this database."""

    memory: Memory
    table: str
    rowid: int
    epoch: int

    @property
    def place(self) -> tuple[int, int, int]:
        """Where it is among all, newest first."""
        return -self.epoch, _ORDER[self.memory.kind], -self.rowid


def search(path: Path, wanted: MemoriesRequest, *, deadline: Deadline) -> MemoriesReply:
    """Return the first memories of a filter. Raises InvalidRequestError; errors of the database. Blocking."""
    after = _place(wanted.after)
    with open_live(path, deadline=deadline) as connection:
        connection.run("BEGIN")
        pages = [
            (
                _count(connection, kind, wanted),
                list(_read(connection, kind, wanted, order=wanted.order, after=after, limit=wanted.limit + 1)),
            )
            for kind in _kinds(connection, wanted)
        ]
    is_reversed = wanted.order is MemoryOrder.OLDEST
    found = sorted((one for _, page in pages for one in page), key=lambda one: one.place, reverse=is_reversed)
    page = found[: wanted.limit]
    more = len(found) > len(page)
    last = ".".join(str(abs(part)) for part in page[-1].place) if more else None
    return MemoriesReply(memories=[one.memory for one in page], total=sum(count for count, _ in pages), next=last)


def select(path: Path, wanted: MemoryFilter, *, limit: int, deadline: Deadline) -> list[Found]:
    """Return the memories of a filter, `limit` at most, newest first. Blocking."""
    with open_live(path, deadline=deadline) as connection:
        connection.run("BEGIN")
        kinds = _kinds(connection, wanted)
        found = [one for kind in kinds for one in _read(connection, kind, wanted, limit=limit)]
    return sorted(found, key=lambda one: one.place)[:limit]


def named(path: Path, refs: Sequence[str], *, deadline: Deadline) -> list[Found]:
    """Return the memories of these names that are there. Blocking."""
    with open_live(path, deadline=deadline) as connection:
        connection.run("BEGIN")
        found = [_named(connection, ref) for ref in dict.fromkeys(refs)]
    return [one for one in found if one is not None]


def read(path: Path, ref: str, *, deadline: Deadline) -> MemoryReply:
    """Return a memory with its columns. Raises NotFoundError. Blocking."""
    with open_live(path, deadline=deadline) as connection:
        connection.run("BEGIN")
        found = _named(connection, ref)
        if found is None:
            raise NotFoundError(f"there is no memory {ref}", remedy="search for it")
        names = _columns(connection, found.table)
        sql = f"SELECT {', '.join(map(quoted, names))} FROM {quoted(found.table)} WHERE rowid = ?"  # noqa: S608 - from the schema, quoted
        row = connection.row(sql, (found.rowid,)) or ()
    fields = {name: value for name, value in zip(names, row, strict=True) if not isinstance(value, bytes)}
    return MemoryReply(memory=found.memory, fields=fields)


def _kinds(connection: Connection, wanted: MemoryFilter) -> list[MemoryKind]:
    """Return the kinds that may have memories of a filter, and whose table is there."""
    kinds = [wanted.kind] if wanted.kind is not None else list(_SHAPES)
    if wanted.type is not None:
        kinds = [kind for kind in kinds if _SHAPES[kind].type is not None]
    return [kind for kind in kinds if _columns(connection, _SHAPES[kind].table)]


def _read(
    connection: Connection,
    kind: MemoryKind,
    wanted: MemoryFilter,
    *,
    limit: int,
    order: MemoryOrder = MemoryOrder.NEWEST,
    after: tuple[int, int, int] | None = None,
) -> Iterator[Found]:
    shape, have = _SHAPES[kind], set(_columns(connection, _SHAPES[kind].table))
    source, where, bindings = _filter(connection, kind, wanted)
    is_newest = order is MemoryOrder.NEWEST
    if after is not None:
        epoch, last, rowid = after
        here = _ORDER[kind]
        # Of one time, kinds come in their order, then rows from the newest: all of it turned round for the oldest.
        beyond, behind = ("<", ">") if is_newest else (">", "<")
        where.append(
            f"(t.created_at_epoch {beyond} ? OR (t.created_at_epoch = ? "
            f"AND (? {behind} ? OR (? = ? AND t.id {beyond} ?))))"
        )
        bindings += [epoch, epoch, here, last, here, last, rowid]
    indexed = "f" in source.split()
    snippet = f"snippet({shape.table}_fts, -1, '{_BEGIN}', '{_END}', '{_CUT}', {AROUND})" if indexed else "NULL"
    ordered = ", ".join(f"{key} {'DESC' if is_newest else 'ASC'}" for key in ("t.created_at_epoch", "t.id"))
    sql = f"{_select(shape, have, snippet)} FROM {source} WHERE {' AND '.join(where)} ORDER BY {ordered} LIMIT ?"
    for row in connection.each(sql, (*bindings, limit)):
        yield _found(kind, shape, row)


def _select(shape: _Shape, have: set[str], snippet: str) -> str:
    """Return the columns of a memory as SQL."""
    title = f"coalesce({', '.join(f't.{name}' for name in shape.title if name in have)}, '')"
    identity = ", ".join(f"t.{name}" if name in have else "NULL" for name in shape.identity)
    type_ = f"t.{shape.type}" if shape.type else "NULL"
    return (
        f"SELECT t.id, t.created_at_epoch, substr({title}, 1, {TITLE}), {snippet}, {shape.project}, {type_}, "
        f"{_origin(have)}, {identity}"
    )


def _count(connection: Connection, kind: MemoryKind, wanted: MemoryFilter) -> int:
    source, where, bindings = _filter(connection, kind, wanted)
    return connection.number(f"SELECT count(*) FROM {source} WHERE {' AND '.join(where)}", tuple(bindings))  # noqa: S608 - our own columns


def _filter(connection: Connection, kind: MemoryKind, wanted: MemoryFilter) -> tuple[str, list[str], list[Value]]:
    """Return the tables, conditions and values of a filter."""
    shape, have = _SHAPES[kind], set(_columns(connection, _SHAPES[kind].table))
    source, where, bindings = f"{quoted(shape.table)} t", ["1"], list[Value]()
    if words := wanted.q.split()[:WORDS]:
        if _columns(connection, f"{shape.table}_fts"):
            source = f"{shape.table}_fts f JOIN {quoted(shape.table)} t ON t.id = f.rowid"
            where.append(f"{shape.table}_fts MATCH ?")
            # Each word as a text of its own: none of it is an operator of the index.
            bindings.append(" ".join('"' + word.replace('"', '""') + '"' for word in words))
        else:
            whole = " || ' ' || ".join(f"coalesce(t.{name}, '')" for name in shape.texts if name in have)
            for word in words:
                where.append(f"instr(lower({whole}), lower(?))")
                bindings.append(word)
    conditions: list[tuple[str, Value | None]] = [
        (f"{shape.project} = ?", wanted.project),
        (f"t.{shape.type} = ?", wanted.type),
        (f"coalesce({_origin(have)}, '') = ?", wanted.origin),
        ("t.created_at_epoch >= ?", _milliseconds(wanted.since, "since")),
        ("t.created_at_epoch < ?", _milliseconds(wanted.until, "until")),
    ]
    for condition, value in conditions:
        if value is not None:
            where.append(condition)
            bindings.append(value)
    return source, where, bindings


def _named(connection: Connection, ref: str) -> Found | None:
    kind_name, _, rest = ref.partition("-")
    epoch, _, _ = rest.partition("-")
    if kind_name not in set(MemoryKind) or not epoch.isascii() or not epoch.isdigit() or len(epoch) > 18:
        return None
    kind, at = MemoryKind(kind_name), int(epoch)
    if not _columns(connection, _SHAPES[kind].table):
        return None
    shape, have = _SHAPES[kind], set(_columns(connection, _SHAPES[kind].table))
    sql = f"{_select(shape, have, 'NULL')} FROM {quoted(shape.table)} t WHERE t.created_at_epoch = ?"
    found = (_found(kind, shape, row) for row in connection.rows(sql, (at,)))
    return next((one for one in found if one.memory.ref == ref), None)


def _found(kind: MemoryKind, shape: _Shape, row: tuple[Value, ...]) -> Found:
    rowid, epoch, title, snippet, project, type_, origin, *identity = row
    at = int(str(epoch or 0))
    content = json.dumps([str(part) for part in identity]).encode()
    text, marks = _marked(str(snippet or ""))
    memory = Memory(
        ref=f"{kind}-{at}-{hashlib.sha256(content).hexdigest()[:16]}",
        kind=kind,
        title=str(title or ""),
        snippet=text,
        marks=marks,
        project=str(project or ""),
        type=str(type_ or ""),
        created_at=clock.stamp(datetime.fromtimestamp(at / 1_000, UTC)) if 0 <= at < 10**14 else "",
        origin=str(origin or ""),
    )
    return Found(memory, shape.table, int(str(rowid)), at)


def _marked(snippet: str) -> tuple[str, list[int]]:
    """Return a snippet without the marks of the index, and where its hits begin and end."""
    plain: list[str] = []
    marks: list[int] = []
    for letter in snippet:
        if letter in {_BEGIN, _END}:
            marks.append(len(plain))
        else:
            plain.append(letter)
    return "".join(plain), marks


def _origin(have: set[str]) -> str:
    return "t.origin_device_id" if "origin_device_id" in have else "NULL"


def _columns(connection: Connection, table: str) -> list[str]:
    return connection.texts("SELECT name FROM pragma_table_info(?)", (table,))


def _milliseconds(text: str | None, field: str) -> int | None:
    if text is None:
        return None
    try:
        return int(clock.parse(text).timestamp() * 1_000)
    except (ValueError, OverflowError) as error:
        raise InvalidRequestError(
            f"{text!r} is not a time with its offset from UTC", remedy="write it as 2026-01-31T18:00:00Z", field=field
        ) from error


def _place(text: str | None) -> tuple[int, int, int] | None:
    """Return the end of an earlier page. Raises InvalidRequestError."""
    if text is None:
        return None
    parts = text.split(".")
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() and len(part) < 19 for part in parts):
        raise InvalidRequestError(
            "after is not the end of a page", remedy="send `next` of the last answer", field="after"
        )
    epoch, order, rowid = map(int, parts)
    return epoch, order, rowid
