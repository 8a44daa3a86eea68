"""Open the database that `DATABASE_URL` names, migrated: SQLite beside the coordinator, or PostgreSQL.

SQLite is opened for durable commits (WAL, `synchronous=FULL`). Each transaction has a connection of its own: readers
see what is committed, and only that. No secret of the address is ever shown.
"""

import asyncio
import sqlite3
import time
from collections.abc import AsyncGenerator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar
from weakref import WeakKeyDictionary

from sqlalchemy import event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    DBAPIError,
    IntegrityError,
    InvalidatePoolError,
    SQLAlchemyError,
    StatementError,
)
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

from membridge.aio.deadline import Deadline
from membridge.errors import SettingsError, UnavailableError
from membridge.system import files
from membridge.wiring.service import Migrations
from services.database.migrate import upgrade

T = TypeVar("T")

#: An open database, as those who only pass it on name it.
Engine = AsyncEngine
#: Seconds that SQLite waits for another process' transaction.
BUSY_SECONDS = 10.0
#: What every connection to SQLite is set to.
#: A checkpoint writes each page once that many transactions changed: rarely, it spares the disk the others.
SQLITE_PRAGMAS = (
    "journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON", "cache_size = -8192", "wal_autocheckpoint = 4000",
)  # fmt: skip
#: Seconds after which a connection that nobody used is asked whether it still is one, before it is used again.
IDLE_SECONDS = 1.0
#: Connections: one for the group commit, the others for readers.
POOL = 5
_RETURNED = "membridge_returned"
_MIGRATING: "WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock]" = WeakKeyDictionary()


def parse_url(text: str, default: Path) -> URL:
    """Return the address of the database: `postgresql://…`, `sqlite:///file`, or the embedded default when empty.

    Raises SettingsError for anything else; the message holds no password.
    """
    try:
        url = make_url(text or f"sqlite:///{default}")
    except ArgumentError as error:
        raise SettingsError(
            "DATABASE_URL is not a valid database URL",
            remedy="set it to postgresql://user:password@host/name or sqlite:///path",
        ) from error
    match url.get_backend_name():
        case "sqlite" if url.database:
            return url.set(drivername="sqlite+aiosqlite")
        case "postgresql":
            return url.set(drivername="postgresql+asyncpg")
        case other:
            raise SettingsError(
                f"DATABASE_URL names {other or 'no'} database: only PostgreSQL and SQLite are supported",
                remedy="set it to postgresql://user:password@host/name or sqlite:///path",
            )


@asynccontextmanager
async def open_engine(url: URL, migrations: Migrations, *, deadline: Deadline) -> AsyncGenerator[AsyncEngine]:
    """Open the database and bring its tables up to date.

    Errors: UnavailableError when it does not answer or cannot be migrated.
    """
    if url.get_backend_name() == "sqlite":
        folder = Path(url.database or "").parent
        with files.translated(folder):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        engine = create_async_engine(url, pool_size=POOL, max_overflow=0, connect_args={"timeout": BUSY_SECONDS})
        event.listen(engine.sync_engine, "connect", _prepare_sqlite)
    else:
        engine = create_async_engine(url, pool_size=POOL, max_overflow=0)
        _check_idle(engine)
    try:
        async with deadline.scope(f"opening {url.render_as_string(hide_password=True)}"):
            try:
                async with _migrating(), engine.begin() as connection:
                    await connection.run_sync(upgrade, migrations)
            except (SQLAlchemyError, OSError) as error:
                raise unavailable(url, error) from error
        yield engine
    finally:
        await engine.dispose()


async def to_its_end(work: Coroutine[None, None, T]) -> T:
    """Return the result of `work`; a cancellation meanwhile is passed on after `work` has ended.

    For work that holds a connection: a connection of SQLite that is closed in the middle of a statement keeps its
    transaction and its lock until the statement is collected (aiosqlite 0.22.1, SQLAlchemy 2.1.9). `work` has its own
    deadline.
    """
    task, cancelled = asyncio.get_running_loop().create_task(work), None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        task.exception()
        raise cancelled
    return task.result()


def _check_idle(engine: AsyncEngine) -> None:
    """Have idle connections replaced if their server is gone.

    `pool_pre_ping` asks each time, which is three round trips beside the one of a read.
    """

    def returned(_: DBAPIConnection | None, record: ConnectionPoolEntry) -> None:
        record.info[_RETURNED] = time.monotonic()

    def taken(connection: DBAPIConnection, record: ConnectionPoolEntry, _: PoolProxiedConnection) -> None:
        now = time.monotonic()
        if now - record.info.get(_RETURNED, now) < IDLE_SECONDS:
            return
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as error:
            raise InvalidatePoolError from error

    event.listen(engine.sync_engine, "checkin", returned)
    event.listen(engine.sync_engine, "checkout", taken)


def _migrating() -> asyncio.Lock:
    """Return this event loop's lock for migrations: Alembic keeps the step that runs in global variables."""
    return _MIGRATING.setdefault(asyncio.get_running_loop(), asyncio.Lock())


def unavailable(url: URL, error: Exception) -> UnavailableError:
    """Return the error for a database that failed."""
    file = url.database if url.get_backend_name() == "sqlite" else None
    return UnavailableError(
        f"database {file or url.render_as_string(hide_password=True)}: {cause_of(error)}",
        remedy=f"check that {file} can be written, and that its disk has room"
        if file
        else "check DATABASE_URL and that the database runs",
    )


def is_lost(error: BaseException) -> bool:
    """Whether a statement failed because its connection ended: another one may answer it."""
    return isinstance(error, DBAPIError) and error.connection_invalidated


def is_of_values(error: BaseException) -> bool:
    """Whether a statement failed because of its values; the database and the connection are fine then.

    PostgreSQL's classes 22 and 23 are data and constraints; SQLite's driver raises OverflowError for a whole number of
    more than 64 bits, and UnicodeError for half of a surrogate pair.
    """
    if isinstance(error, DBAPIError):
        return isinstance(error, IntegrityError | DataError) or _state_of(error.orig)[:2] in {"22", "23"}
    if _state_of(error)[:2] in {"22", "23"} or isinstance(error, sqlite3.IntegrityError | sqlite3.DataError):
        return True
    # asyncpg's own refusal of a value is a ValueError.
    return isinstance(error, StatementError | OverflowError | ValueError)


def is_of_database(error: BaseException) -> bool:
    """Whether an error is the database's or its driver's."""
    return isinstance(error, SQLAlchemyError | OSError | sqlite3.Error) or type(error).__module__.startswith("asyncpg")


def _state_of(error: BaseException | None) -> str:
    return str(getattr(error, "sqlstate", None) or "")


def cause_of(error: BaseException) -> str:
    """Return the driver's message in one line."""
    lines = str(getattr(error, "orig", None) or error).splitlines()
    return lines[0] if lines else type(error).__name__


def _prepare_sqlite(connection: DBAPIConnection, _: object) -> None:
    cursor = connection.cursor()
    for pragma in SQLITE_PRAGMAS:
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()
