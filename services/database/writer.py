"""One transaction on the driver itself, on a connection of its own.

SQLAlchemy's way there costs as much as SQLite. A transaction of SQLite is one call in one thread; PostgreSQL gets an
array for each column of an insert.
"""
# ruff: noqa: S608 - the names in the statements are those of our own tables

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any, ParamSpec, Protocol, TypeVar

from sqlalchemy import Float, Integer, Table
from sqlalchemy.ext.asyncio import AsyncEngine

from membridge.errors import MembridgeError
from services.database.engine import BUSY_SECONDS, SQLITE_PRAGMAS
from services.database.statements import Row, Statement, Value, Verb

P = ParamSpec("P")
T = TypeVar("T")

#: The rows of a statement, in the order in which they are written.
Grouped = Sequence[tuple[Statement, Sequence[Row]]]


@dataclass(frozen=True, slots=True)
class Fence:
    """A row that is in `table`, with these values, as long as this process may write; without it `fenced` is raised."""

    table: Table
    row: Row
    fenced: MembridgeError


class Writer(Protocol):
    """A connection that writes."""

    async def transact(self, grouped: Grouped) -> None:
        """Check the fence, execute each statement with all its rows, and commit. Errors: the fence's, the driver's."""
        ...


@asynccontextmanager
async def open_writer(engine: AsyncEngine, fence: Fence) -> AsyncGenerator[Writer]:
    """Open a connection beside those of the engine. Errors: the driver's."""
    quote = engine.dialect.identifier_preparer.quote
    if engine.dialect.name == "sqlite":
        with ThreadPoolExecutor(1, thread_name_prefix="commit") as thread:
            connection = await _in(thread, _connect, engine.url.database or "")
            try:
                yield _Sqlite(thread, connection, quote, fence)
            finally:
                await _in(thread, connection.close)
    else:
        async with engine.connect() as connection:
            yield _Postgres((await connection.get_raw_connection()).driver_connection, quote, fence)


class _Sqlite:
    def __init__(
        self, thread: ThreadPoolExecutor, connection: sqlite3.Connection, quote: Callable[[str], str], fence: Fence
    ) -> None:
        self._thread, self._connection, self._quote, self._fence = thread, connection, quote, fence
        self._check = _checking(fence, quote, ["?"] * len(fence.row))
        self._prepared: dict[Statement, str] = {}

    async def transact(self, grouped: Grouped) -> None:
        bound = list[tuple[str, Sequence[Sequence[Value]]]]()
        for statement, rows in grouped:
            words = self._prepared.get(statement)
            if words is None:
                words = self._prepared[statement] = _words(statement, self._quote, ["?"] * len(statement.columns))
            bound.append((words, [[row[name] for name in statement.columns] for row in rows]))
        await _in(self._thread, self._transact, bound)

    def _transact(self, bound: Sequence[tuple[str, Sequence[Sequence[Value]]]]) -> None:
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            if connection.execute(self._check, list(self._fence.row.values())).rowcount != 1:
                raise self._fence.fenced
            for words, rows in bound:
                connection.executemany(words, rows)
            connection.execute("COMMIT")
        finally:
            if connection.in_transaction:
                connection.execute("ROLLBACK")


class _Postgres:
    def __init__(
        self,
        connection: Any,
        quote: Callable[[str], str],
        fence: Fence,
    ) -> None:
        self._connection, self._quote, self._fence = connection, quote, fence
        self._check = _checking(fence, quote, [f"${number}" for number in range(1, len(fence.row) + 1)])
        self._prepared: dict[tuple[Statement, ...], str] = {}

    async def transact(self, grouped: Grouped) -> None:
        async with self._connection.transaction():
            if await self._connection.execute(self._check, *self._fence.row.values()) != "UPDATE 1":
                raise self._fence.fenced
            for inserts, part in groupby(grouped, lambda one: one[0].verb is Verb.INSERT):
                if inserts:
                    await self._insert([*part])
                else:
                    for statement, rows in part:
                        await self._change(statement, rows)

    async def _insert(self, grouped: Grouped) -> None:
        """Insert into several tables at once: with an array for each column, and one answer to wait for."""
        key = tuple(statement for statement, _ in grouped)
        words = self._prepared.get(key)
        if words is None:
            words = self._prepared[key] = self._inserting(key)
        columns = [[row[name] for row in rows] for statement, rows in grouped for name in statement.columns]
        await self._connection.execute(words, *columns)

    async def _change(self, statement: Statement, rows: Sequence[Row]) -> None:
        """Update or delete row by row: for an array the planner may read the whole table."""
        words = self._prepared.get((statement,))
        if words is None:
            words = self._prepared[statement,] = _words(statement, self._quote, _places(statement, 1))
        await self._connection.executemany(words, [[row[name] for name in statement.columns] for row in rows])

    def _inserting(self, statements: Sequence[Statement]) -> str:
        parts, first = list[str](), 1
        for statement in statements:
            names = ", ".join(self._quote(name) for name in statement.columns)
            arrays = ", ".join(f"{place}[]" for place in _places(statement, first))
            first += len(statement.columns)
            table = self._quote(statement.table.name)
            parts.append(f"INSERT INTO {table} ({names}) SELECT * FROM unnest({arrays})")
        *others, last = parts
        named = ", ".join(f"part{number} AS ({part})" for number, part in enumerate(others))
        return f"WITH {named} {last}" if others else last


def _places(statement: Statement, first: int) -> list[str]:
    return [f"${n}::{_postgres_type(statement.table, name)}" for n, name in enumerate(statement.columns, first)]


def _words(statement: Statement, quote: Callable[[str], str], places: Sequence[str]) -> str:
    """Return the statement for one row; `places` are the placeholders of its columns."""
    table, names = quote(statement.table.name), [quote(name) for name in statement.columns]
    match statement.verb:
        case Verb.INSERT:
            return f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join(places)})"
        case Verb.UPDATE:
            # The id comes last: SQLite counts its placeholders as they stand.
            changes = ", ".join(f"{name} = {place}" for name, place in zip(names[:-1], places[:-1], strict=True))
            return f"UPDATE {table} SET {changes} WHERE id = {places[-1]}"
        case Verb.DELETE:
            return f"DELETE FROM {table} WHERE id = {places[-1]}"


def _checking(fence: Fence, quote: Callable[[str], str], places: Sequence[str]) -> str:
    """Return an update that changes nothing in the row of the fence: it waits for a transaction that changes it."""
    names = [quote(name) for name in fence.row]
    found = " AND ".join(f"{name} = {place}" for name, place in zip(names, places, strict=True))
    return f"UPDATE {quote(fence.table.name)} SET {names[0]} = {names[0]} WHERE {found}"


def _postgres_type(table: Table, column: str) -> str:
    kind = table.c[column].type
    return "integer" if isinstance(kind, Integer) else "double precision" if isinstance(kind, Float) else "text"


def _connect(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
    for pragma in SQLITE_PRAGMAS:
        connection.execute(f"PRAGMA {pragma}")
    return connection


async def _in(thread: ThreadPoolExecutor, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    return await asyncio.get_running_loop().run_in_executor(thread, partial(function, *args, **kwargs))
