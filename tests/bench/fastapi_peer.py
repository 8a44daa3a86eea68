"""The peer of the gateway: FastAPI and uvicorn (uvloop, httptools), which does the same with the same tables.

`python -m tests.bench.fastapi_peer PORT KEY sqlite:FILE|postgresql:DSN`. A key is checked in constant time, the body is
validated, a task and its audit record are written in one transaction that is on disk before the answer. As is usual:
one connection to write to SQLite and some to read from it (aiosqlite), a pool for PostgreSQL (asyncpg).
"""

import asyncio
import hashlib
import hmac
import json
import sys
import uuid
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Protocol

import aiosqlite
import asyncpg
import uvicorn
from fastapi import Depends, FastAPI, Header, HTTPException
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

PORT, KEY, DATABASE = int(sys.argv[1]), sys.argv[2], sys.argv[3]
READERS = 4
Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class Policy(BaseModel):
    """Bounds of one attempt."""

    timeout_sec: Annotated[int, Field(ge=1, le=3_600)] = 120
    budget: Annotated[int, Field(ge=0)] = 0


class Spec(BaseModel):
    """A task to submit."""

    model_config = ConfigDict(extra="forbid")
    agent_slug: Name
    prompt: Annotated[str, StringConstraints(min_length=1, max_length=8_388_608)]
    context_id: Name | None = None
    context_hints: Annotated[list[str], Field(max_length=64)] = []
    policy: Policy = Policy()
    desired_format: Literal["json", "text"] = "text"
    max_attempts: Annotated[int, Field(ge=1, le=10)] = 3
    priority: Annotated[int, Field(ge=0, le=9)] = 5
    not_before: str | None = None
    idempotency_key: Annotated[str, StringConstraints(min_length=1, max_length=128)] | None = None
    labels: Annotated[list[str], Field(max_length=32)] = []


class Task(Spec):
    """A task as it is now."""

    id: str
    status: str
    created_at: str
    updated_at: str
    lease_id: str | None = None
    worker_id: str | None = None
    attempts: int = 0
    interruptions: int = 0
    reason: str = ""


COLUMNS = (
    "id", "context_id", "agent_slug", "prompt", "context_hints", "timeout_sec", "budget", "desired_format",
    "max_attempts", "priority", "idempotency_key", "labels", "created_at", "status", "updated_at", "not_before",
    "attempts", "interruptions", "reason",
)  # fmt: skip
AUDIT = ("timestamp", "action", "entity_type", "entity_id", "actor", "detail")


class Database(Protocol):
    """What both databases do."""

    async def insert(self, task: tuple[Any, ...], audit: tuple[Any, ...]) -> None:
        """Write a task and its audit record."""
        ...

    async def task(self, task_id: str) -> Mapping[str, Any] | None:
        """Read a task."""
        ...


def _insert(table: str, columns: tuple[str, ...], mark: str) -> str:
    marks = ", ".join(mark.format(number + 1) for number in range(len(columns)))
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks})"


class Sqlite:
    """SQLite by aiosqlite."""

    def __init__(self, writer: aiosqlite.Connection, readers: "asyncio.Queue[aiosqlite.Connection]") -> None:
        self._writer, self._writing, self._readers = writer, asyncio.Lock(), readers
        self._task, self._audit = _insert("tasks", COLUMNS, "?"), _insert("audit", AUDIT, "?")

    async def insert(self, task: tuple[Any, ...], audit: tuple[Any, ...]) -> None:
        """Write a task and its audit record."""
        async with self._writing:
            await self._writer.execute(self._task, task)
            await self._writer.execute(self._audit, audit)
            await self._writer.commit()

    async def task(self, task_id: str) -> Mapping[str, Any] | None:
        """Read a task."""
        reader = await self._readers.get()
        try:
            async with reader.execute("SELECT * FROM tasks WHERE id = ?", (task_id,)) as found:
                row = await found.fetchone()
                return None if row is None else dict(row)
        finally:
            self._readers.put_nowait(reader)


class Postgres:
    """PostgreSQL by asyncpg."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        self._pool = pool
        self._task, self._audit = _insert("tasks", COLUMNS, "${}"), _insert("audit", AUDIT, "${}")

    async def insert(self, task: tuple[Any, ...], audit: tuple[Any, ...]) -> None:
        """Write a task and its audit record."""
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(self._task, *task)
            await connection.execute(self._audit, *audit)

    async def task(self, task_id: str) -> Mapping[str, Any] | None:
        """Read a task."""
        return await self._pool.fetchrow("SELECT * FROM tasks WHERE id = $1", task_id)


@asynccontextmanager
async def _opened() -> AsyncGenerator[Database]:
    kind, _, where = DATABASE.partition(":")
    if kind == "postgresql":
        async with asyncpg.create_pool(where, min_size=10, max_size=20) as pool:
            yield Postgres(pool)
        return
    readers: asyncio.Queue[aiosqlite.Connection] = asyncio.Queue()
    async with aiosqlite.connect(where) as writer:
        opened = [await aiosqlite.connect(where) for _ in range(READERS)]
        for each in (writer, *opened):
            each.row_factory = aiosqlite.Row
            for pragma in (
                "journal_mode = WAL",
                "synchronous = FULL",
                "cache_size = -8192",
                "wal_autocheckpoint = 4000",
            ):
                await each.execute(f"PRAGMA {pragma}")
        for each in opened:
            readers.put_nowait(each)
        yield Sqlite(writer, readers)
        for each in opened:
            await each.close()


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncGenerator[None]:
    async with _opened() as database:
        app.state.database = database
        yield


app = FastAPI(lifespan=_lifespan)
_DIGEST = hashlib.sha256(KEY.encode()).digest()


async def checked(x_runtime_api_key: Annotated[str, Header()] = "") -> None:
    """Refuse a wrong key."""
    if not hmac.compare_digest(hashlib.sha256(x_runtime_api_key.encode()).digest(), _DIGEST):
        raise HTTPException(401, "the key is wrong")


@app.post("/api/runtime/llm-tasks", status_code=201, dependencies=[Depends(checked)])
async def submit(spec: Spec) -> Task:
    """Submit a task."""
    now, task_id = datetime.now(UTC).isoformat(), str(uuid.uuid4())
    task = Task(
        **spec.model_dump(exclude={"context_id"}), id=task_id, context_id=spec.context_id or task_id, status="queued",
        created_at=now, updated_at=now,
    )  # fmt: skip
    row = (
        task.id, task.context_id, task.agent_slug, task.prompt, json.dumps(task.context_hints), task.policy.timeout_sec,
        task.policy.budget, task.desired_format, task.max_attempts, task.priority, task.idempotency_key,
        json.dumps(task.labels), now, task.status, now, 0.0, 0, 0, "",
    )  # fmt: skip
    database: Database = app.state.database
    await database.insert(row, (now, "submitted", "task", task.id, "peer", "{}"))
    return task


@app.get("/api/runtime/llm-tasks/{task_id}", dependencies=[Depends(checked)])
async def read(task_id: str) -> Task:
    """Read a task."""
    database: Database = app.state.database
    row = await database.task(task_id)
    if row is None:
        raise HTTPException(404, "there is no such task")
    return Task(
        **{name: row[name] for name in COLUMNS if name in Task.model_fields and name != "not_before"}
        | {"context_hints": json.loads(row["context_hints"]), "labels": json.loads(row["labels"])},
        policy=Policy(timeout_sec=row["timeout_sec"], budget=row["budget"]),
        not_before=datetime.fromtimestamp(row["not_before"], UTC).isoformat() if row["not_before"] else None,
        lease_id=row["lease_id"], worker_id=row["worker_id"],
    )  # fmt: skip


if __name__ == "__main__":
    uvicorn.run(
        app, host="127.0.0.1", port=PORT, loop="uvloop", http="httptools", log_level="warning", access_log=False
    )
