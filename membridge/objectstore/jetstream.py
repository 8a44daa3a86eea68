"""An object store inside NATS: the JetStream Object Store's own layout, so that `nats object ls` shows it.

It is the default, so that a home needs no S3. Chunks are written with a window and read in batches. The meta message
comes last and by compare-and-set: exactly one of several writers of a key wins, and nobody sees a half-written object.
"""

import asyncio
import base64
import hashlib
import os
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import msgspec

from membridge.aio import threads
from membridge.aio.deadline import Deadline
from membridge.aio.tasks import first_failure
from membridge.bus import jetstream
from membridge.bus.connection import Bus
from membridge.bus.errors import StreamMissingError
from membridge.errors import (
    CorruptObjectError,
    DeadlineExceededError,
    MembridgeError,
    ObjectExistsError,
    ObjectMissingError,
    StoreUnavailableError,
    TooLargeError,
)
from membridge.objectstore.messages import (
    CHUNK,
    Meta,
    decoded,
    digest_text,
    translated,
)
from membridge.objectstore.protocol import (
    MAX_GET_BYTES,
    ObjectInfo,
    ObjectStore,
    Progress,
    StoreDescription,
    checked_body,
    checked_key,
    checked_prefix,
)
from membridge.system import clock, files

#: The bucket of snapshots, and that of large outputs of tasks.
BUCKET, ARTIFACTS = "membridge", "membridge-artifacts"
#: Chunks written at once, and chunks of one read.
WINDOW, BATCH = 16, 32
#: Chunks written to a file at once.
WRITTEN = 8
#: Objects of a listing that are read at once.
PAGE = 1024
#: Seconds to free the chunks of an object that was not stored.
GIVE_UP = 2.0
#: Tries of writing a meta message while no answer comes.
TRIES = 3


class JetStreamStore:
    """The store, over one connection. `purges`: its user may purge the store's stream."""

    def __init__(self, bus: Bus, bucket: str, *, purges: bool = True) -> None:
        self._bus, self._bucket, self.purges = bus, bucket, purges
        self._stream = f"OBJ_{bucket}"

    async def put(self, key: str, body: bytes, *, if_absent: bool = True, deadline: Deadline) -> None:
        """Store a small body."""
        checked_body(checked_key(key), body)
        pieces = iter([body[start : start + CHUNK] for start in range(0, len(body), CHUNK)])
        await self._store(key, pieces, len(body), if_absent=if_absent, deadline=deadline, progress=None)

    async def upload(
        self, key: str, source: Path, *, if_absent: bool = True, deadline: Deadline, progress: Progress | None = None
    ) -> None:
        """Store a file."""
        checked_key(key)
        with files.translated(source), source.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            pieces = iter(lambda: file.read(CHUNK), b"")
            await self._store(key, pieces, size, if_absent=if_absent, deadline=deadline, progress=progress)

    async def get(self, key: str, *, start: int = 0, length: int | None = None, deadline: Deadline) -> bytes:
        """Return an object's bytes."""
        meta = await self._meta(checked_key(key), deadline=deadline)
        while True:
            wanted = meta.size - start if length is None else min(length, meta.size - start)
            if wanted > MAX_GET_BYTES:
                raise TooLargeError(f"object {key} has {wanted} bytes, at most {MAX_GET_BYTES} are read at once")
            if wanted <= 0:
                return b""
            parts = bytearray()
            async for piece in self._chunks(meta, start=start, deadline=deadline):
                parts += piece
                if len(parts) >= wanted:
                    break
            body = bytes(parts[:wanted])
            if len(body) == wanted and (wanted < meta.size or _is_whole(meta, body)):
                return body
            # Replaced while it was read, or damaged: the meta message shows which.
            before, meta = meta, await self._meta(key, deadline=deadline)
            if meta.nuid == before.nuid:
                raise CorruptObjectError(f"object {key} is damaged in the store")

    async def download(
        self, key: str, target: Path, *, start: int = 0, deadline: Deadline, progress: Progress | None = None
    ) -> None:
        """Fetch an object into a file; a whole one is checked against its digest."""
        meta = await self._meta(checked_key(key), deadline=deadline)
        digest, done = hashlib.sha256(), start
        with files.translated(target), target.open("ab" if start else "wb") as file:
            file.truncate(start)

            def write(pieces: list[bytes]) -> None:
                for piece in pieces:
                    digest.update(piece)
                    file.write(piece)
                file.flush()

            pieces: list[bytes] = []
            async for piece in self._chunks(meta, start=start, deadline=deadline):
                pieces.append(piece)
                done += len(piece)
                if len(pieces) < WRITTEN and done < meta.size:
                    continue
                await threads.run(write, pieces)
                pieces = []
                if progress is not None:
                    progress(done, meta.size)
        if done != meta.size or (start == 0 and meta.digest and meta.digest != digest_text(digest.digest())):
            raise CorruptObjectError(f"object {key} is damaged in the store")

    async def list(self, prefix: str, *, after: str = "", deadline: Deadline) -> AsyncGenerator[ObjectInfo]:
        """Yield objects in the order of their keys."""
        checked_prefix(prefix)
        with translated("listing the object store"):
            counts = await jetstream.subject_counts(
                self._bus, self._stream, f"$O.{self._bucket}.M.>", deadline=deadline
            )
        # The names of all objects come in one answer; of those under the prefix only what a caller takes is read.
        names = sorted(name for subject in counts if (name := _name_of(subject)) > after and name.startswith(prefix))
        for start in range(0, len(names), PAGE):
            page = names[start : start + PAGE]
            found: dict[str, ObjectInfo] = {}
            async for meta in self._metas_of(page, deadline=deadline):
                if not meta.deleted:
                    found[meta.name] = ObjectInfo(meta.name, meta.size, meta.mtime or None)
            for name in page:
                if name in found:
                    yield found[name]

    async def delete(self, key: str, *, deadline: Deadline) -> None:
        """Delete an object and its chunks."""
        for _ in range(TRIES):
            meta, last = await self._last(checked_key(key), deadline=deadline)
            if meta is None or meta.deleted:
                return
            gone = msgspec.structs.replace(meta, deleted=True, size=0, chunks=0, digest="")
            try:
                tombstone = await self._write_meta(gone, last, what=f"deleting {key}", deadline=deadline)
            except ObjectExistsError:
                continue  # replaced meanwhile
            await self._forget(self.chunk_subject(meta.nuid), deadline=deadline)
            await self._forget(self.meta_subject(key), up_to=tombstone, deadline=deadline)
            return
        raise StoreUnavailableError(f"deleting {key}: other nodes keep replacing it", remedy="try again")

    async def head(self, key: str, *, deadline: Deadline) -> ObjectInfo | None:
        """Return an object's facts, None when there is none."""
        meta = await self._find(checked_key(key), deadline=deadline)
        return None if meta is None else ObjectInfo(meta.name, meta.size, meta.mtime or None)

    async def share(self, key: str, *, seconds: int, deadline: Deadline) -> str | None:
        """Return None: NATS does not speak HTTP."""
        del key, seconds, deadline
        return None

    async def describe(self, *, deadline: Deadline) -> StoreDescription:
        """Describe the store; compare-and-set is JetStream's own."""
        del deadline
        return StoreDescription("jetstream", f"bucket {self._bucket} in NATS", conditional_put=True)

    async def warm(self) -> None:
        """Nothing to start."""

    async def ensure(self, *, replicas: int, deadline: Deadline) -> None:
        """Create the store's stream if it is missing."""
        config = {
            "name": self._stream,
            "subjects": [f"$O.{self._bucket}.C.>", f"$O.{self._bucket}.M.>"],
            "discard": "new",
            "allow_rollup_hdrs": False,
            "allow_direct": True,
            "num_replicas": replicas,
            # The server bounds what all streams hold together: `max_file_store`.
            "max_bytes": -1,
            "storage": "file",
        }
        with translated(f"opening the object store {self._bucket}"):
            try:
                await jetstream.stream_state(self._bus, self._stream, deadline=deadline)
            except StreamMissingError:
                verb = f"STREAM.CREATE.{self._stream}"
                await jetstream.call(self._bus, verb, config, jetstream.Answer, deadline=deadline)

    async def _store(
        self,
        key: str,
        pieces: Iterator[bytes],
        size: int,
        *,
        if_absent: bool,
        deadline: Deadline,
        progress: Progress | None,
    ) -> None:
        before, last = await self._last(key, deadline=deadline)
        there = before is not None and not before.deleted
        if there and if_absent:
            raise ObjectExistsError(f"object {key} exists already")
        nuid = secrets.token_hex(11)
        try:
            sent, chunks, digest = await self._send(nuid, pieces, size, deadline=deadline, progress=progress)
        except BaseException:
            # No meta message names these chunks, and none ever will.
            await self._forget(self.chunk_subject(nuid), deadline=Deadline.after(GIVE_UP))
            raise
        meta = Meta(
            name=key,
            bucket=self._bucket,
            nuid=nuid,
            size=sent,
            chunks=chunks,
            mtime=clock.stamp(),
            digest=digest_text(digest),
        )
        await self._write_meta(meta, last if if_absent else None, what=f"storing {key}", deadline=deadline)
        if there and before is not None:
            await self._forget(self.chunk_subject(before.nuid), deadline=deadline)

    async def _write_meta(self, meta: Meta, last: int | None, *, what: str, deadline: Deadline) -> int:
        """Write a meta message and return its sequence; with `last` only if that is still the key's last message.

        A write whose answer was lost is looked up, and repeated if it was not stored. The chunks of `meta` are freed
        only if it was certainly refused: a cancelled or unanswered one may be stored, and then they are the object.
        `reclaiming` finds chunks that are left over.
        """
        # No roll-up: in a stream that allows it, a user that may write one object can delete all.
        headers = {} if last is None else {"Nats-Expected-Last-Subject-Sequence": str(last)}
        subject, body, lost = self.meta_subject(meta.name), msgspec.json.encode(meta), None
        for _ in range(TRIES):
            try:
                with translated(what):
                    return await self._bus.store(subject, body, headers=headers, deadline=deadline)
            except (DeadlineExceededError, StoreUnavailableError) as error:
                lost = error
            except MembridgeError as error:
                if lost is None:
                    await self._drop(meta)
                if lost is None or not isinstance(error, ObjectExistsError):
                    raise
            try:
                found, at = await self._last(meta.name, deadline=deadline)
            except MembridgeError:
                break
            if found == meta:
                return at
            if last is not None and at > last:
                await self._drop(meta)
                raise ObjectExistsError(f"{what}: another writer stored that object first") from lost
        raise lost or StoreUnavailableError(
            f"{what}: the object store does not answer whether it was stored", remedy="try again"
        )

    async def _drop(self, meta: Meta) -> None:
        """Free the chunks of an object that was not stored."""
        if not meta.deleted:
            await self._forget(self.chunk_subject(meta.nuid), deadline=Deadline.after(GIVE_UP))

    async def _send(
        self, nuid: str, pieces: Iterator[bytes], size: int, *, deadline: Deadline, progress: Progress | None
    ) -> tuple[int, int, bytes]:
        subject, digest, sent, chunks = self.chunk_subject(nuid), hashlib.sha256(), 0, 0
        free = asyncio.Semaphore(WINDOW)

        async def one(piece: bytes) -> None:
            try:
                with translated("storing a chunk"):
                    await self._bus.store(subject, piece, headers={}, deadline=deadline)
            finally:
                free.release()

        with first_failure():
            async with asyncio.TaskGroup() as group:
                while piece := await threads.run(next, pieces, b""):
                    digest.update(piece)
                    await free.acquire()
                    # In order: JetStream stores chunks as they arrive, and a task's first step sends.
                    group.create_task(one(piece))
                    await asyncio.sleep(0)
                    sent, chunks = sent + len(piece), chunks + 1
                    if progress is not None:
                        progress(sent, size)
        return sent, chunks, digest.digest()

    async def _chunks(self, meta: Meta, *, start: int, deadline: Deadline) -> AsyncIterator[bytes]:
        if meta.size == 0:
            return
        position = 0
        async for piece in self._read(self.chunk_subject(meta.nuid), deadline=deadline):
            end = position + len(piece)
            if end > start:
                yield piece[max(0, start - position) :]
            position = end

    async def _read(self, subject: str, *, deadline: Deadline) -> AsyncIterator[bytes]:
        """Yield the bodies under a subject, oldest first."""
        async for _, body in self._read_numbered(subject, deadline=deadline):
            yield body

    async def _read_numbered(self, subject: str, *, deadline: Deadline) -> AsyncIterator[tuple[int, bytes]]:
        """Yield sequence and body of each message; the server sends a batch only when asked."""
        read = jetstream.read_from(self._bus, self._stream, subject, start=1, batch=BATCH, deadline=deadline)
        async with aclosing(read):
            while True:
                with translated("reading from the object store"):
                    message = await anext(read, None)
                if message is None:
                    return
                yield jetstream.sequence_of(message), message.body

    async def _meta(self, key: str, *, deadline: Deadline) -> Meta:
        meta = await self._find(key, deadline=deadline)
        if meta is None:
            raise ObjectMissingError(f"object {key} does not exist")
        return meta

    async def _find(self, key: str, *, deadline: Deadline) -> Meta | None:
        found = (await self._last(key, deadline=deadline))[0]
        return None if found is None or found.deleted else found

    async def _last(self, key: str, *, deadline: Deadline) -> tuple[Meta | None, int]:
        """Return the last meta message of a key and its sequence; None and 0 when there is none."""
        with translated(f"looking for {key}"):
            found = await jetstream.last_of(self._bus, self._stream, self.meta_subject(key), deadline=deadline)
        return (None, 0) if found is None else (decoded(found.body), jetstream.sequence_of(found))

    async def _metas_of(self, names: Sequence[str], *, deadline: Deadline) -> AsyncIterator[Meta]:
        subjects = [self.meta_subject(name) for name in names]
        read = jetstream.last_of_each(self._bus, self._stream, subjects, deadline=deadline)
        async with aclosing(read):
            while True:
                with translated("reading from the object store"):
                    message = await anext(read, None)
                if message is None:
                    return
                meta = decoded(message.body)
                if meta is not None:
                    yield meta

    async def metas(self, *, deadline: Deadline) -> AsyncIterator[tuple[int, Meta]]:
        """Yield sequence and content of every meta message, oldest first; the last of a name counts."""
        async for sequence, body in self._read_numbered(f"$O.{self._bucket}.M.>", deadline=deadline):
            meta = decoded(body)
            if meta is not None:
                yield sequence, meta

    async def chunk_counts(self, *, deadline: Deadline) -> dict[str, int]:
        """Return how many chunks each upload has, by its nuid, whether it became an object or not."""
        prefix = self.chunk_subject("")
        with translated("looking through the object store"):
            counts = await jetstream.subject_counts(self._bus, self._stream, f"{prefix}>", deadline=deadline)
        return {subject.removeprefix(prefix): number for subject, number in counts.items()}

    async def purge(self, subject: str, *, up_to: int | None = None, deadline: Deadline) -> None:
        """Remove the messages of a subject; with `up_to` only up to that sequence."""
        with translated("deleting from the object store"):
            await jetstream.purge(self._bus, self._stream, subject, up_to=up_to, deadline=deadline)

    async def _forget(self, subject: str, *, up_to: int | None = None, deadline: Deadline) -> None:
        """Free messages that nothing names any more; what this misses `reclaiming` finds later."""
        if not self.purges:
            return
        try:
            await self.purge(subject, up_to=up_to, deadline=deadline)
        except MembridgeError:
            return

    def meta_subject(self, key: str) -> str:
        return f"$O.{self._bucket}.M.{base64.urlsafe_b64encode(key.encode()).decode()}"

    def chunk_subject(self, nuid: str) -> str:
        return f"$O.{self._bucket}.C.{nuid}"


@asynccontextmanager
async def open_jetstream(
    bus: Bus, *, bucket: str = BUCKET, replicas: int = 1, purges: bool = True
) -> AsyncGenerator[ObjectStore]:
    """Open the store in NATS, created if missing. `purges`: our user may purge its stream."""
    store = JetStreamStore(bus, bucket, purges=purges)
    await store.ensure(replicas=replicas, deadline=Deadline.after(10.0))
    yield store


def _name_of(subject: str) -> str:
    """Return the object's name in the subject of a meta message, "" for what is none."""
    try:
        return base64.urlsafe_b64decode(subject.rpartition(".")[2]).decode()
    except ValueError:
        return ""


def _is_whole(meta: Meta, body: bytes) -> bool:
    return not meta.digest or meta.digest == digest_text(hashlib.sha256(body).digest())
