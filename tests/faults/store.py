"""A real object store that breaks off, or waits, at a chosen call."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path

from membridge.aio.deadline import Deadline
from membridge.objectstore.protocol import ObjectInfo, ObjectStore, Progress, StoreDescription


class KilledError(BaseException):
    """The end of the process that worked with the store: nothing may catch it."""


@dataclass(slots=True)
class FaultyStore:
    """Passes every call on; of those that write or delete it dies before number `die_at`, or waits before `hold_at`.

    `writes` counts them, from 1. `held` is set when it waits, until `open` is set.
    """

    inner: ObjectStore
    die_at: int | None = None
    hold_at: int | None = None
    writes: int = 0
    calls: list[str] = field(default_factory=list[str])
    held: asyncio.Event = field(default_factory=asyncio.Event)
    open: asyncio.Event = field(default_factory=asyncio.Event)

    async def put(self, key: str, body: bytes, *, if_absent: bool = True, deadline: Deadline) -> None:
        await self._write("put", key)
        await self.inner.put(key, body, if_absent=if_absent, deadline=deadline)

    async def get(self, key: str, *, start: int = 0, length: int | None = None, deadline: Deadline) -> bytes:
        return await self.inner.get(key, start=start, length=length, deadline=deadline)

    async def upload(
        self, key: str, source: Path, *, if_absent: bool = True, deadline: Deadline, progress: Progress | None = None
    ) -> None:
        await self._write("upload", key)
        await self.inner.upload(key, source, if_absent=if_absent, deadline=deadline, progress=progress)

    async def download(
        self, key: str, target: Path, *, start: int = 0, deadline: Deadline, progress: Progress | None = None
    ) -> None:
        await self.inner.download(key, target, start=start, deadline=deadline, progress=progress)

    def list(self, prefix: str, *, after: str = "", deadline: Deadline) -> AsyncGenerator[ObjectInfo]:
        return self.inner.list(prefix, after=after, deadline=deadline)

    async def delete(self, key: str, *, deadline: Deadline) -> None:
        await self._write("delete", key)
        await self.inner.delete(key, deadline=deadline)

    async def head(self, key: str, *, deadline: Deadline) -> ObjectInfo | None:
        return await self.inner.head(key, deadline=deadline)

    async def describe(self, *, deadline: Deadline) -> StoreDescription:
        return await self.inner.describe(deadline=deadline)

    async def warm(self) -> None:
        await self.inner.warm()

    async def _write(self, verb: str, key: str) -> None:
        self.writes += 1
        if self.writes == self.die_at:
            raise KilledError(f"{verb} {key}")
        if self.writes == self.hold_at:
            self.held.set()
            await self.open.wait()
        self.calls.append(f"{verb} {key}")
