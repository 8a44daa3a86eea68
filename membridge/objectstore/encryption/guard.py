"""The store of a node without a key: plain, and refused as soon as it turns out to be encrypted.

Also the base of every layer over a store.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path

from membridge.aio import threads
from membridge.aio.deadline import Deadline
from membridge.errors import EncryptionKeyError
from membridge.objectstore.encryption import marker
from membridge.objectstore.encryption.keys import COPY_KEY, ID
from membridge.objectstore.encryption.marker import MAGIC
from membridge.objectstore.protocol import ObjectInfo, ObjectStore, Progress, StoreDescription


class StoreLayer:
    """A store over another one: what all layers do alike."""

    def __init__(self, inner: ObjectStore) -> None:
        self.inner = inner

    async def warm(self) -> None:
        """Start what the next call needs."""
        await self.inner.warm()


def backend(store: ObjectStore) -> ObjectStore:
    """Return the store below all layers."""
    while isinstance(store, StoreLayer):
        store = store.inner
    return store


class PlainStore(StoreLayer):
    """Passes everything through, unless the store is encrypted."""

    def __init__(self, inner: ObjectStore) -> None:
        super().__init__(inner)
        self._looked_at: float | None = None

    async def put(self, key: str, body: bytes, *, if_absent: bool = True, deadline: Deadline) -> None:
        """Store a small body."""
        await self._check(deadline)
        await self.inner.put(key, body, if_absent=if_absent, deadline=deadline)

    async def get(self, key: str, *, start: int = 0, length: int | None = None, deadline: Deadline) -> bytes:
        """Return an object's bytes."""
        await self._check(deadline)
        body = await self.inner.get(key, start=start, length=length, deadline=deadline)
        if not start and body.startswith(MAGIC):
            raise _encrypted(_key_id(body))
        return body

    async def upload(
        self, key: str, source: Path, *, if_absent: bool = True, deadline: Deadline, progress: Progress | None = None
    ) -> None:
        """Store a file."""
        await self._check(deadline)
        await self.inner.upload(key, source, if_absent=if_absent, deadline=deadline, progress=progress)

    async def download(
        self, key: str, target: Path, *, start: int = 0, deadline: Deadline, progress: Progress | None = None
    ) -> None:
        """Fetch an object into a file."""
        await self._check(deadline)
        await self.inner.download(key, target, start=start, deadline=deadline, progress=progress)
        first = await threads.run(_first_bytes, target)
        if not start and first.startswith(MAGIC):
            await threads.run(target.unlink)
            raise _encrypted(_key_id(first))

    async def list(self, prefix: str, *, after: str = "", deadline: Deadline) -> AsyncGenerator[ObjectInfo]:
        """Yield objects in the order of their keys."""
        async with aclosing(self.inner.list(prefix, after=after, deadline=deadline)) as listing:
            async for info in listing:
                yield info

    async def delete(self, key: str, *, deadline: Deadline) -> None:
        """Delete an object."""
        await self._check(deadline)
        await self.inner.delete(key, deadline=deadline)

    async def head(self, key: str, *, deadline: Deadline) -> ObjectInfo | None:
        """Return an object's facts, None when there is none."""
        return await self.inner.head(key, deadline=deadline)

    async def share(self, key: str, *, seconds: int, deadline: Deadline) -> str | None:
        """Return a URL from which anybody can download an object for so long."""
        return await self.inner.share(key, seconds=seconds, deadline=deadline)

    async def describe(self, *, deadline: Deadline) -> StoreDescription:
        """Describe the store."""
        await self._check(deadline)
        return await self.inner.describe(deadline=deadline)

    async def _check(self, deadline: Deadline) -> None:
        now = asyncio.get_running_loop().time()
        if self._looked_at is not None and now - self._looked_at < marker.LOOK_EVERY:
            return
        found = await marker.read(self.inner, deadline=deadline)
        if found is not None:
            raise _encrypted(found.key_id)
        self._looked_at = now


def _encrypted(key_id: str) -> EncryptionKeyError:
    return EncryptionKeyError(
        f"the object store is encrypted with key {key_id}, and this node has no key", remedy=COPY_KEY
    )


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(len(MAGIC) + 1 + ID)


def _key_id(encrypted: bytes) -> str:
    return encrypted[len(MAGIC) + 1 :][:ID].hex()
