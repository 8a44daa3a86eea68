"""S3 by aioboto3: the verbs of the protocol over one client.

Imported only in the transfer child, because botocore never leaves the memory of a process that loaded it.

5xx answers, time-outs and broken connections are retried with jittered back-off until the deadline; 4xx never. A
conditional write whose answer was lost is recognised by a nonce, not written twice.
"""

import asyncio
import base64
import hashlib
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeVar, cast

import aioboto3
import aiohttp
import botocore.exceptions as boto
from botocore.config import Config

from membridge.aio import threads
from membridge.aio.backoff import Backoff
from membridge.aio.deadline import Deadline
from membridge.aio.tasks import first_failure
from membridge.errors import (
    CorruptObjectError,
    CredentialsError,
    MembridgeError,
    NotFoundError,
    ObjectExistsError,
    ObjectMissingError,
    StoreUnavailableError,
    TooLargeError,
)
from membridge.objectstore.protocol import MAX_GET_BYTES, ObjectInfo, Progress
from membridge.objectstore.s3.frames import S3Wire
from membridge.system import files

T = TypeVar("T")

#: Bytes of a part, and parts sent at once: they bound the memory of a transfer.
PART, PARTS = 5 << 20, 2
#: Bytes read at once while downloading.
CHUNK = 1 << 20
#: Tries of one request, and the longest pause between two, in seconds.
TRIES, PAUSE = 6, 4.0
_NONCE = "membridge-nonce"
_CREDENTIALS = frozenset(
    {"InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied", "InvalidToken", "ExpiredToken", "401", "403"}
)
_TRANSIENT = (
    boto.ConnectionError,
    boto.HTTPClientError,
    boto.ReadTimeoutError,
    boto.ResponseStreamingError,
    boto.IncompleteReadError,
    aiohttp.ClientError,
    TimeoutError,
    ConnectionError,
)


class _Body(Protocol):
    """A response's body: entered, then read at once or in chunks."""

    async def __aenter__(self) -> object: ...
    async def __aexit__(self, *failure: object) -> object: ...
    async def read(self) -> bytes: ...
    def iter_chunks(self, chunk_size: int) -> AsyncIterator[bytes]: ...


class _Client(Protocol):
    """The part of botocore's client that we use; its methods are made at run time and have no types."""

    async def put_object(self, **given: object) -> dict[str, Any]: ...
    async def get_object(self, **given: object) -> dict[str, Any]: ...
    async def head_object(self, **given: object) -> dict[str, Any]: ...
    async def generate_presigned_url(self, operation: str, **given: object) -> str: ...
    async def delete_object(self, **given: object) -> dict[str, Any]: ...
    async def list_objects_v2(self, **given: object) -> dict[str, Any]: ...
    async def create_multipart_upload(self, **given: object) -> dict[str, Any]: ...
    async def upload_part(self, **given: object) -> dict[str, Any]: ...
    async def complete_multipart_upload(self, **given: object) -> dict[str, Any]: ...
    async def abort_multipart_upload(self, **given: object) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class _Written:
    """What distinguishes our object from another writer's, and a whole one from a part."""

    nonce: str
    size: int


@dataclass(frozen=True, slots=True)
class S3:
    """One bucket through one client."""

    client: _Client
    wire: S3Wire

    async def put(self, key: str, body: bytes, *, if_absent: bool, deadline: Deadline) -> None:
        """Store a small body."""
        nonce = secrets.token_hex(16)
        given = {"IfNoneMatch": "*"} if if_absent else {}
        given["ContentMD5"] = await threads.run(_md5, body)

        async def once() -> None:
            await self.client.put_object(Bucket=self.wire.bucket, Key=key, Body=body, Metadata={_NONCE: nonce}, **given)

        await self._conditional(key, _Written(nonce, len(body)), once, deadline=deadline)

    async def get(self, key: str, *, start: int, length: int | None, deadline: Deadline) -> bytes:
        """Return bytes of an object."""
        if length == 0:
            return b""

        async def once() -> bytes:
            end = "" if length is None else str(start + length - 1)
            given = {"Range": f"bytes={start}-{end}"} if start or length is not None else {}
            reply = await self.client.get_object(Bucket=self.wire.bucket, Key=key, **given)
            stream = cast("_Body", reply["Body"])
            async with stream:
                if reply["ContentLength"] > MAX_GET_BYTES:
                    raise TooLargeError(
                        f"object {key} has {reply['ContentLength']} bytes, at most {MAX_GET_BYTES} are read at once"
                    )
                body = await stream.read()
            if len(body) != reply["ContentLength"]:
                raise boto.IncompleteReadError(actual_bytes=len(body), expected_bytes=reply["ContentLength"])
            return body

        try:
            return await self._tried(f"reading {key}", once, deadline=deadline)
        except _RangeError:
            return b""

    async def upload(self, key: str, source: Path, *, if_absent: bool, deadline: Deadline, progress: Progress) -> None:
        """Store a file; a large one in parts."""
        size = (await threads.run(source.stat)).st_size
        if size <= PART:
            await self.put(key, await threads.run(source.read_bytes), if_absent=if_absent, deadline=deadline)
            progress(size, size)
            return
        nonce = secrets.token_hex(16)
        started = await self._tried(
            f"storing {key}",
            lambda: self.client.create_multipart_upload(Bucket=self.wire.bucket, Key=key, Metadata={_NONCE: nonce}),
            deadline=deadline,
        )
        upload = started["UploadId"]
        condition = {"IfNoneMatch": "*"} if if_absent else {}
        try:
            parts = await self._send_parts(key, upload, source, size, deadline=deadline, progress=progress)

            async def complete() -> None:
                await self.client.complete_multipart_upload(
                    Bucket=self.wire.bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": parts}, **condition
                )

            await self._conditional(key, _Written(nonce, size), complete, deadline=deadline)
        except BaseException:
            await self._abort(key, upload)
            raise

    async def download(self, key: str, target: Path, *, start: int, deadline: Deadline, progress: Progress) -> None:
        """Fetch an object into a file; a broken transfer resumes where it stopped."""
        state = _Download(start)

        async def once() -> None:
            given: dict[str, str] = {"Range": f"bytes={state.done}-"} if state.done else {}
            if state.etag:
                given["IfMatch"] = state.etag
            reply = await self.client.get_object(Bucket=self.wire.bucket, Key=key, **given)
            stream = cast("_Body", reply["Body"])
            async with stream:
                state.etag = reply["ETag"]
                state.total = state.done + reply["ContentLength"]
                with target.open("ab" if state.done else "wb") as file:
                    file.truncate(state.done)
                    async for chunk in stream.iter_chunks(CHUNK):
                        await threads.run(_write, file, chunk, target)
                        state.done += len(chunk)
                        progress(state.done, state.total)
            if state.done != state.total:
                raise boto.IncompleteReadError(actual_bytes=state.done, expected_bytes=state.total)

        try:
            await self._tried(f"reading {key}", once, deadline=deadline)
        except _RangeError as error:
            found = await self.head(key, deadline=deadline)
            if found is None or found.size_bytes != start:
                raise CorruptObjectError(f"object {key} ends before byte {start}") from error
        except ObjectExistsError as error:
            raise CorruptObjectError(f"object {key} was replaced while it was read", remedy="try again") from error

    async def pages(self, prefix: str, *, after: str, deadline: Deadline) -> AsyncIterator[list[ObjectInfo]]:
        """Yield pages of objects, in the order of keys."""
        token: str | None = None
        while True:
            given = {"ContinuationToken": token} if token else {"StartAfter": after} if after else {}
            page = await self._tried(
                f"listing {prefix}",
                lambda given=given: self.client.list_objects_v2(Bucket=self.wire.bucket, Prefix=prefix, **given),
                deadline=deadline,
            )
            yield [
                ObjectInfo(item["Key"], item["Size"], item["LastModified"].isoformat())
                for item in page.get("Contents", [])
                if "Key" in item and "Size" in item and "LastModified" in item
            ]
            token = page.get("NextContinuationToken")
            if not page.get("IsTruncated") or not token:
                return

    async def delete(self, key: str, *, deadline: Deadline) -> None:
        """Delete an object."""
        await self._tried(
            f"deleting {key}", lambda: self.client.delete_object(Bucket=self.wire.bucket, Key=key), deadline=deadline
        )

    async def head(self, key: str, *, deadline: Deadline) -> ObjectInfo | None:
        """Return an object's facts, None when there is none."""
        found = await self._look(key, deadline=deadline)
        if found is None:
            return None
        return ObjectInfo(key, found["ContentLength"], found["LastModified"].isoformat())

    async def share(self, key: str, *, seconds: int) -> str:
        """Return a signed URL of an object that is valid for so long."""
        given = {"Bucket": self.wire.bucket, "Key": key}
        return await self.client.generate_presigned_url("get_object", Params=given, ExpiresIn=seconds)

    async def honours_conditions(self, *, deadline: Deadline) -> bool:
        """Return whether a second conditional write of one key is refused, as S3 does since 2024."""
        key = f"membridge-probe/{secrets.token_hex(8)}"
        await self.put(key, b"one", if_absent=True, deadline=deadline)
        try:
            await self.put(key, b"two", if_absent=True, deadline=deadline)
        except ObjectExistsError:
            return True
        finally:
            await self.delete(key, deadline=deadline)
        return False

    async def _send_parts(
        self, key: str, upload: str, source: Path, size: int, *, deadline: Deadline, progress: Progress
    ) -> list[dict[str, object]]:
        parts: dict[int, dict[str, object]] = {}
        free = asyncio.Semaphore(PARTS)
        sent = 0

        async def one(number: int) -> None:
            nonlocal sent
            try:
                body = await threads.run(_read_part, source, (number - 1) * PART)
                md5 = await threads.run(_md5, body)
                done = await self._tried(
                    f"storing {key}",
                    lambda: self.client.upload_part(
                        Bucket=self.wire.bucket,
                        Key=key,
                        UploadId=upload,
                        PartNumber=number,
                        Body=body,
                        ContentMD5=md5,
                    ),
                    deadline=deadline,
                )
                parts[number] = {"ETag": done["ETag"], "PartNumber": number}
                sent += len(body)
                progress(sent, size)
            finally:
                free.release()

        with first_failure():
            async with asyncio.TaskGroup() as group:
                for number in range(1, -(-size // PART) + 1):
                    await free.acquire()
                    group.create_task(one(number))
        return [parts[number] for number in sorted(parts)]

    async def _abort(self, key: str, upload: str) -> None:
        try:
            async with asyncio.timeout(5.0):
                await self.client.abort_multipart_upload(Bucket=self.wire.bucket, Key=key, UploadId=upload)
        except (boto.BotoCoreError, boto.ClientError, TimeoutError, aiohttp.ClientError):
            # The store removes it by its own rule for unfinished uploads.
            return

    async def _conditional(
        self, key: str, written: _Written, once: Callable[[], Awaitable[None]], *, deadline: Deadline
    ) -> None:
        """Write; if the key is taken, find out whether by an earlier try of ours whose answer was lost."""
        try:
            await self._tried(f"storing {key}", once, deadline=deadline)
        except (ObjectExistsError, ObjectMissingError):
            found = await self._written(key, deadline=deadline)
            if found is None or found.nonce != written.nonce:
                raise
            if found.size != written.size:
                # Ours, and incomplete: some servers store the part of a body that arrived.
                await self.delete(key, deadline=deadline)
                await self._tried(f"storing {key}", once, deadline=deadline)

    async def _written(self, key: str, *, deadline: Deadline) -> _Written | None:
        found = await self._look(key, deadline=deadline)
        if found is None:
            return None
        return _Written(found["Metadata"].get(_NONCE, ""), found["ContentLength"])

    async def _look(self, key: str, *, deadline: Deadline) -> dict[str, Any] | None:
        """Return S3's facts about an object, None when there is none."""
        try:
            return await self._tried(
                f"looking at {key}",
                lambda: self.client.head_object(Bucket=self.wire.bucket, Key=key),
                deadline=deadline,
            )
        except ObjectMissingError:
            return None

    async def _tried(self, what: str, once: Callable[[], Awaitable[T]], *, deadline: Deadline) -> T:
        backoff = Backoff(0.2, PAUSE)
        while True:
            try:
                async with deadline.scope(what):
                    return await once()
            except boto.ClientError as error:
                failure = self._of_answer(error, what)
                if not isinstance(failure, StoreUnavailableError):
                    raise failure from error
                cause: Exception = error
            except _TRANSIENT as error:
                failure, cause = self._down(what, type(error).__name__), error
            except (boto.BotoCoreError, boto.NoCredentialsError) as error:
                raise self._down(what, type(error).__name__) from error
            pause = backoff.failed()
            if backoff.failures == TRIES or deadline.remaining() < pause:
                raise failure from cause
            await asyncio.sleep(pause)

    def _of_answer(self, error: boto.ClientError, what: str) -> MembridgeError:
        code = str(error.response.get("Error", {}).get("Code", ""))
        status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
        if code == "NoSuchBucket":
            return NotFoundError(
                f"bucket {self.wire.bucket} does not exist at {self.wire.endpoint}",
                remedy="create it, or set MINIO_BUCKET to one that exists",
            )
        if code in _CREDENTIALS or status in {401, 403}:
            return CredentialsError(
                f"{what}: {self.wire.endpoint} refused the access key",
                remedy="check MINIO_ACCESS_KEY and MINIO_SECRET_KEY, and what that key may do",
            )
        if status in _BY_STATUS:
            kind, sentence = _BY_STATUS[status]
            return kind(f"{what}: {sentence}")
        if status >= 500 or status in {408, 409, 429}:
            return self._down(what, code or str(status))
        return CorruptObjectError(f"{what}: the store answered {code or status}", remedy="run `membridge doctor`")

    def _down(self, what: str, why: str) -> StoreUnavailableError:
        return StoreUnavailableError(f"{what}: {self.wire.endpoint} is not available ({why})")


class _RangeError(MembridgeError):
    """The range begins at or after the end."""


_BY_STATUS: dict[int, tuple[type[MembridgeError], str]] = {
    404: (ObjectMissingError, "no such object"),
    412: (ObjectExistsError, "another writer stored that object first"),
    416: (_RangeError, "the object ends before that range"),
}


@dataclass(slots=True)
class _Download:
    done: int
    total: int = 0
    etag: str = ""


@asynccontextmanager
async def open_client(wire: S3Wire) -> AsyncGenerator[S3]:
    """Open a client for the bucket, without the machine's AWS configuration."""
    config = Config(
        signature_version="s3v4",
        s3={"addressing_style": "path"},
        # MinIO before 2025 fails on the checksum trailers that newer botocore adds.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        retries={"max_attempts": 1, "mode": "standard"},
        connect_timeout=5,
        read_timeout=60,
        max_pool_connections=8,
    )
    session = aioboto3.Session(
        aws_access_key_id=wire.access_key, aws_secret_access_key=wire.secret_key, region_name=wire.region
    )
    client = cast("_Opened", session).client(
        "s3", endpoint_url=wire.endpoint, config=config, verify=wire.ca_file or True
    )
    async with client as opened:
        yield S3(opened, wire)


class _Opened(Protocol):
    """The part of aioboto3's session that we use."""

    def client(self, service_name: str, **given: object) -> AbstractAsyncContextManager[_Client]: ...


def _read_part(source: Path, start: int) -> bytes:
    with source.open("rb") as file:
        file.seek(start)
        return file.read(PART)


def _md5(body: bytes) -> str:
    """Return the MD5 that every S3 checks; not all check the hash in the signature."""
    return base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode()


def _write(file: BinaryIO, chunk: bytes, target: Path) -> None:
    try:
        file.write(chunk)
    except OSError as error:
        raise files.meaning(error, target) from error
