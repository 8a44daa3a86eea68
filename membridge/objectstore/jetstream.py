"""An object store inside NATS: the JetStream Object Store's own layout, so that `nats object ls` shows it.

The embedded default, so that a home needs no S3. Chunks are written with a window and read in batches; the meta message
comes last and by compare-and-set, so that of several writers of one key exactly one wins and a half-written object is
never seen.
"""

import asyncio
import base64
import hashlib
import os
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg

from membridge import blocking
from membridge.deadline import Deadline
from membridge.errors import (
    CorruptObjectError,
    DeadlineExceededError,
    DiskFullError,
    MembridgeError,
    ObjectExistsError,
    ObjectMissingError,
    StoreUnavailableError,
    TooLargeError,
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

#: The bucket of snapshots.
BUCKET = "membridge"
#: The layout's usual size of a chunk.
CHUNK = 128 << 10
#: Seconds that one answer may take.
ANSWER = 10.0
#: Chunks written at once, and chunks of one read.
WINDOW, BATCH = 16, 32
#: JetStream's error numbers: another writer was first; no room left; no such stream.
_LOST, _FULL, _NO_STREAM = frozenset({10071, 10164}), frozenset({10047, 10077, 10023}), 10059


class _Error(msgspec.Struct):
    code: int = 0
    err_code: int = 0
    description: str = ""


class _Ack(msgspec.Struct):
    seq: int = 0
    error: _Error | None = None


class _Options(msgspec.Struct):
    max_chunk_size: int = CHUNK


class _State(msgspec.Struct):
    subjects: dict[str, int] = {}


class _Info(msgspec.Struct):
    total: int = 0
    state: _State = msgspec.field(default_factory=_State)


class Meta(msgspec.Struct, omit_defaults=False):
    """The meta message of an object, as the Object Store's layout (ADR-20) has it."""

    name: str
    bucket: str
    nuid: str
    size: int
    chunks: int
    mtime: str = ""
    digest: str = ""
    deleted: bool = False
    options: _Options = msgspec.field(default_factory=_Options)


class JetStreamStore:
    """The store. `client` returns the present connection: another one after the server closed the last."""

    def __init__(self, client: Callable[[], Client], bucket: str, *, purges: bool = True, api: str = "$JS.API") -> None:
        self._client, self._bucket, self._purges, self._api = client, bucket, purges, api
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
        with _translated_files(source), source.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            pieces = iter(lambda: file.read(CHUNK), b"")
            await self._store(key, pieces, size, if_absent=if_absent, deadline=deadline, progress=progress)

    async def get(self, key: str, *, start: int = 0, length: int | None = None, deadline: Deadline) -> bytes:
        """Return an object's bytes."""
        meta = await self._meta(checked_key(key), deadline=deadline)
        wanted = meta.size - start if length is None else min(length, meta.size - start)
        if wanted > MAX_GET_BYTES:
            raise TooLargeError(f"object {key} has {wanted} bytes, more than {MAX_GET_BYTES} are not read at once")
        if wanted <= 0:
            return b""
        parts = bytearray()
        async for piece in self._chunks(meta, start=start, deadline=deadline):
            parts += piece
            if len(parts) >= wanted:
                break
        if len(parts) < wanted:
            raise CorruptObjectError(f"object {key} is incomplete")
        return bytes(parts[:wanted])

    async def download(
        self, key: str, target: Path, *, start: int = 0, deadline: Deadline, progress: Progress | None = None
    ) -> None:
        """Fetch an object into a file; a whole one is compared with its digest."""
        meta = await self._meta(checked_key(key), deadline=deadline)
        digest, done = hashlib.sha256(), start
        with _translated_files(target), target.open("ab" if start else "wb") as file:
            file.truncate(start)
            async for piece in self._chunks(meta, start=start, deadline=deadline):
                await blocking.run(file.write, piece)
                digest.update(piece)
                done += len(piece)
                if progress is not None:
                    progress(done, meta.size)
        if done != meta.size or (start == 0 and meta.digest and meta.digest != _digest(digest.digest())):
            raise CorruptObjectError(f"object {key} is damaged in the store")

    async def list(self, prefix: str, *, after: str = "", deadline: Deadline) -> AsyncIterator[ObjectInfo]:
        """Yield objects in the order of their keys."""
        checked_prefix(prefix)
        found: dict[str, ObjectInfo] = {}
        async for body in self._read(f"$O.{self._bucket}.M.>", deadline=deadline):
            meta = _decoded(body)
            if meta is None or not meta.name.startswith(prefix) or meta.name <= after:
                continue
            # The last word on a name counts.
            found.pop(meta.name, None)
            if not meta.deleted:
                found[meta.name] = ObjectInfo(meta.name, meta.size, meta.mtime or None)
        for name in sorted(found):
            yield found[name]

    async def delete(self, key: str, *, deadline: Deadline) -> None:
        """Delete an object and its chunks."""
        meta, last = await self._last(checked_key(key), deadline=deadline)
        if meta is None:
            return
        gone = msgspec.structs.replace(meta, deleted=True, size=0, chunks=0, digest="")
        headers = {"Nats-Expected-Last-Subject-Sequence": str(last)}
        reply = await self._request(
            self.meta_subject(key), msgspec.json.encode(gone), headers=headers, deadline=deadline
        )
        tombstone = _ack(reply)
        self._check(tombstone, f"deleting {key}")
        await self._reclaim(meta.nuid, deadline=deadline)
        if self._purges:
            await self.purge(self.meta_subject(key), up_to=tombstone.seq, deadline=deadline)

    async def head(self, key: str, *, deadline: Deadline) -> ObjectInfo | None:
        """Return what an object is."""
        meta = await self._find(checked_key(key), deadline=deadline)
        return None if meta is None else ObjectInfo(meta.name, meta.size, meta.mtime or None)

    async def share(self, key: str, *, seconds: int, deadline: Deadline) -> str | None:
        """Give no address: NATS speaks no HTTP."""
        del key, seconds, deadline
        return None

    async def describe(self, *, deadline: Deadline) -> StoreDescription:
        """Return what the store is; compare-and-set is JetStream's own."""
        del deadline
        return StoreDescription("jetstream", f"bucket {self._bucket} in NATS", conditional_put=True)

    async def warm(self) -> None:
        """Nothing to start."""

    async def ensure(self, *, replicas: int, deadline: Deadline) -> None:
        """Create the store's stream unless it is there."""
        config = {
            "name": self._stream,
            "subjects": [f"$O.{self._bucket}.C.>", f"$O.{self._bucket}.M.>"],
            "discard": "new",
            "allow_rollup_hdrs": False,
            "allow_direct": True,
            "num_replicas": replicas,
            # What all streams may hold together is the server's to bound: `max_file_store`.
            "max_bytes": -1,
            "storage": "file",
        }
        reply = await self._request(f"{self._api}.STREAM.INFO.{self._stream}", b"", deadline=deadline)
        if _ack(reply).error is not None:
            reply = await self._request(
                f"{self._api}.STREAM.CREATE.{self._stream}", msgspec.json.encode(config), deadline=deadline
            )
            self._check(_ack(reply), f"creating the object store {self._bucket}")

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
        if before is not None and if_absent:
            raise ObjectExistsError(f"object {key} exists already")
        nuid = secrets.token_hex(11)
        try:
            sent, chunks, digest = await self._send(nuid, pieces, size, deadline=deadline, progress=progress)
            meta = Meta(
                name=key,
                bucket=self._bucket,
                nuid=nuid,
                size=sent,
                chunks=chunks,
                mtime=datetime.now(UTC).isoformat(),
                digest=_digest(digest),
            )
            # No roll-up: a stream that takes those can be emptied by anybody who may write one object.
            headers = {"Nats-Expected-Last-Subject-Sequence": str(last)} if if_absent else None
            reply = await self._request(
                self.meta_subject(key), msgspec.json.encode(meta), headers=headers, deadline=deadline
            )
            self._check(_ack(reply), f"storing {key}")
        except BaseException:
            await self._forget(nuid)
            raise
        if before is not None:
            await self._reclaim(before.nuid, deadline=deadline)

    async def _send(
        self, nuid: str, pieces: Iterator[bytes], size: int, *, deadline: Deadline, progress: Progress | None
    ) -> tuple[int, int, bytes]:
        subject, digest, sent, chunks = self.chunk_subject(nuid), hashlib.sha256(), 0, 0
        free = asyncio.Semaphore(WINDOW)

        async def one(piece: bytes) -> None:
            try:
                self._check(_ack(await self._request(subject, piece, deadline=deadline)), "storing a chunk")
            finally:
                free.release()

        try:
            async with asyncio.TaskGroup() as group:
                while piece := await blocking.run(next, pieces, b""):
                    digest.update(piece)
                    await free.acquire()
                    # In order: JetStream keeps chunks as they arrive, and a task's first step sends.
                    group.create_task(one(piece))
                    await asyncio.sleep(0)
                    sent, chunks = sent + len(piece), chunks + 1
                    if progress is not None:
                        progress(sent, size)
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
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
        """Yield sequence and body of each message, some at a time: nothing is sent that was not asked for."""
        client, after = self._client(), 1
        inbox = client.new_inbox()
        with _translated("reading from the object store"):
            replies = await client.subscribe(inbox, pending_msgs_limit=4 * BATCH)  # pyright: ignore[reportUnknownMemberType] - an unused future is untyped
        try:
            while True:
                request = {"seq": after, "next_by_subj": subject, "batch": BATCH}
                with _translated("reading from the object store"):
                    await client.publish(
                        f"{self._api}.DIRECT.GET.{self._stream}", msgspec.json.encode(request), reply=inbox
                    )
                more = False
                while True:
                    with _translated("reading from the object store"), _cancellable():
                        message = await replies.next_msg(timeout=_patience(deadline))
                    headers = message.headers or {}
                    if "Nats-Sequence" in headers:
                        after = int(headers["Nats-Sequence"]) + 1
                        yield after - 1, message.data
                        continue
                    status = headers.get("Status", "")
                    if status in {"404", "204"}:
                        more = status == "204" and headers.get("Nats-Num-Pending", "0") != "0"
                        break
                    raise StoreUnavailableError(f"the object store answered {status or 'nothing'}")
                if not more:
                    return
        finally:
            with _translated("reading from the object store"):
                await replies.unsubscribe()

    async def _meta(self, key: str, *, deadline: Deadline) -> Meta:
        meta = await self._find(key, deadline=deadline)
        if meta is None:
            raise ObjectMissingError(f"object {key} does not exist")
        return meta

    async def _find(self, key: str, *, deadline: Deadline) -> Meta | None:
        return (await self._last(key, deadline=deadline))[0]

    async def _last(self, key: str, *, deadline: Deadline) -> tuple[Meta | None, int]:
        """Return what an object is, None when there is none, and the sequence of its last meta message."""
        subject = self.meta_subject(key)
        reply = await self._request_message(f"{self._api}.DIRECT.GET.{self._stream}.{subject}", b"", deadline=deadline)
        headers = reply.headers or {}
        if headers.get("Status") == "404":
            return None, 0
        meta = _decoded(reply.data)
        return None if meta is None or meta.deleted else meta, int(headers.get("Nats-Sequence", "0"))

    async def metas(self, *, deadline: Deadline) -> AsyncIterator[tuple[int, Meta]]:
        """Yield sequence and content of every meta message, oldest first; the last one of a name counts."""
        async for sequence, body in self._read_numbered(f"$O.{self._bucket}.M.>", deadline=deadline):
            meta = _decoded(body)
            if meta is not None:
                yield sequence, meta

    async def chunk_counts(self, *, deadline: Deadline) -> dict[str, int]:
        """Return how many chunks there are of each object, by its nuid, whether it came to be or not."""
        prefix, found = self.chunk_subject(""), dict[str, int]()
        while True:
            asked = {"subjects_filter": f"{prefix}>", "offset": len(found)}
            body = await self._request(
                f"{self._api}.STREAM.INFO.{self._stream}", msgspec.json.encode(asked), deadline=deadline
            )
            page = msgspec.json.decode(body, type=_Info)
            found |= {subject.removeprefix(prefix): number for subject, number in page.state.subjects.items()}
            if not page.state.subjects or len(found) >= page.total:
                return found

    async def _reclaim(self, nuid: str, *, deadline: Deadline) -> None:
        """Free the chunks of an object that is gone; who may not purge leaves that to the server's own machine."""
        if self._purges:
            await self.purge(self.chunk_subject(nuid), deadline=deadline)

    async def purge(self, subject: str, *, up_to: int | None = None, deadline: Deadline) -> None:
        """Remove the messages of a subject; with `up_to` not those that came after that sequence."""
        request: dict[str, object] = {"filter": subject} if up_to is None else {"filter": subject, "seq": up_to + 1}
        body = msgspec.json.encode(request)
        reply = await self._request(f"{self._api}.STREAM.PURGE.{self._stream}", body, deadline=deadline)
        self._check(_ack(reply), "deleting from the object store")

    async def _forget(self, nuid: str) -> None:
        """Take back the chunks of an object that did not come to be; `reclaiming` finds what this misses."""
        try:
            await self._reclaim(nuid, deadline=Deadline.after(2.0))
        except MembridgeError:
            return

    async def _request(
        self, subject: str, body: bytes, *, headers: dict[str, str] | None = None, deadline: Deadline
    ) -> bytes:
        return (await self._request_message(subject, body, headers=headers, deadline=deadline)).data

    async def _request_message(
        self, subject: str, body: bytes, *, headers: dict[str, str] | None = None, deadline: Deadline
    ) -> Msg:
        with _translated("the object store"), _cancellable():
            return await self._client().request(subject, body, timeout=_patience(deadline), headers=headers)

    def _check(self, ack: _Ack, what: str) -> None:
        if ack.error is None:
            return
        if ack.error.err_code in _LOST:
            raise ObjectExistsError(f"{what}: the key is taken")
        if ack.error.err_code in _FULL:
            raise DiskFullError(
                f"{what}: the object store is full", remedy="raise max_file_store in nats-server.conf, or use an S3"
            )
        raise StoreUnavailableError(f"{what}: {ack.error.description}")

    def meta_subject(self, key: str) -> str:
        return f"$O.{self._bucket}.M.{base64.urlsafe_b64encode(key.encode()).decode()}"

    def chunk_subject(self, nuid: str) -> str:
        return f"$O.{self._bucket}.C.{nuid}"


@asynccontextmanager
async def open_jetstream(
    client: Callable[[], Client],
    *,
    bucket: str = BUCKET,
    replicas: int = 1,
    purges: bool = True,
    api: str = "$JS.API",
) -> AsyncGenerator[ObjectStore]:
    """Open the store in NATS; it is created when it is not there.

    `purges` is whether our user may purge it, `api` what the subjects of JetStream's API begin with.
    """
    store = JetStreamStore(client, bucket, purges=purges, api=api)
    await store.ensure(replicas=replicas, deadline=Deadline.after(10.0))
    yield store


def _patience(deadline: Deadline) -> float:
    """Return the seconds to wait for one answer: one that a broken connection swallowed never comes."""
    return max(min(deadline.remaining(), ANSWER), 0.001)


@contextmanager
def _cancellable() -> Generator[None]:
    """Let a cancellation through that came together with the answer.

    nats-py waits with `asyncio.wait_for`, which on Python 3.11 then returns the answer and forgets the cancellation.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task else 0
    yield
    if task is not None and task.cancelling() > before:
        raise asyncio.CancelledError


def _ack(body: bytes) -> _Ack:
    try:
        return msgspec.json.decode(body, type=_Ack)
    except msgspec.DecodeError as error:
        raise StoreUnavailableError("the object store's answer is not JetStream's") from error


def _decoded(body: bytes) -> Meta | None:
    try:
        return msgspec.json.decode(body, type=Meta)
    except msgspec.DecodeError:
        return None


def _digest(raw: bytes) -> str:
    return f"SHA-256={base64.urlsafe_b64encode(raw).decode()}"


@contextmanager
def _translated(what: str) -> Generator[None]:
    try:
        yield
    except (nats.errors.TimeoutError, TimeoutError) as error:
        raise DeadlineExceededError(f"{what} took too long") from error
    except nats.errors.NoRespondersError as error:
        raise StoreUnavailableError(f"{what}: JetStream does not answer") from error
    except (nats.errors.Error, OSError) as error:
        raise StoreUnavailableError(f"{what}: {type(error).__name__}") from error


@contextmanager
def _translated_files(path: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        if error.errno == 28:
            raise DiskFullError(f"no space left while writing {path}") from error
        raise StoreUnavailableError(f"{path}: {error.strerror or error}") from error
