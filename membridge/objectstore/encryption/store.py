"""A store whose operator cannot read it: objects are encrypted before they leave this node and decrypted when read.

A layer over any store, with the same protocol: sizes are those of the content, and a range decrypts the frames that it
is in. Nothing unauthenticated reaches a caller or stays in a file.
"""

import asyncio
import os
import secrets
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from tempfile import gettempdir

from membridge.aio import threads
from membridge.aio.deadline import Deadline
from membridge.errors import (
    CorruptObjectError,
    EncryptionKeyError,
    InvalidRequestError,
    ObjectMissingError,
    TooLargeError,
)
from membridge.objectstore.encryption import envelope, marker
from membridge.objectstore.encryption.envelope import CONTENT, FRAME, HEADER, ObjectCipher
from membridge.objectstore.encryption.guard import StoreLayer
from membridge.objectstore.encryption.keys import COPY_KEY, Key, KeySource
from membridge.objectstore.encryption.marker import Marker
from membridge.objectstore.protocol import (
    MAX_GET_BYTES,
    ObjectInfo,
    ObjectStore,
    Progress,
    StoreDescription,
    checked_body,
    checked_key,
)
from membridge.system import files


@dataclass(frozen=True, slots=True)
class _Keys:
    """The keys in use, when the marker was read, its salt, and the stamp of the key file."""

    keys: tuple[Key, ...]
    looked_at: float
    salt: bytes
    stamp: tuple[int, ...]


class EncryptedStore(StoreLayer):
    """The store. `accept_plain`: also read plain objects, in order to encrypt them."""

    def __init__(self, inner: ObjectStore, source: KeySource, *, accept_plain: bool = False) -> None:
        super().__init__(inner)
        self._source, self._accept_plain = source, accept_plain
        self._keys: _Keys | None = None
        self._looking = asyncio.Lock()

    async def put(self, key: str, body: bytes, *, if_absent: bool = True, deadline: Deadline) -> None:
        """Store a small body."""
        checked_body(_checked(key), body)
        one = await self._encryption_key(deadline)
        encrypted = await threads.run(lambda: b"".join(envelope.encrypt(BytesIO(body), key, one)))
        if len(encrypted) <= MAX_GET_BYTES:
            await self.inner.put(key, encrypted, if_absent=if_absent, deadline=deadline)
            return
        # Just below the bound: what encryption adds makes it too large for `put`.
        async with _beside(Path(gettempdir()) / "membridge") as part:
            await threads.run(_write, part, iter([encrypted]), deadline)
            await self.inner.upload(key, part, if_absent=if_absent, deadline=deadline)

    async def get(self, key: str, *, start: int = 0, length: int | None = None, deadline: Deadline) -> bytes:
        """Return an object's bytes."""
        _checked(key)
        await self._encryption_key(deadline)
        if start or length is not None:
            return await self._range(key, start, length, deadline=deadline)
        raw = await self.inner.get(key, length=MAX_GET_BYTES, deadline=deadline)
        if len(raw) == MAX_GET_BYTES:
            raw += await self.inner.get(key, start=MAX_GET_BYTES, length=CONTENT, deadline=deadline)
        if self._accept_plain and not raw.startswith(marker.MAGIC):
            return raw
        if envelope.content_size(len(raw)) > MAX_GET_BYTES:
            raise _too_large(key, envelope.content_size(len(raw)))

        def decrypted() -> bytes:
            return b"".join(envelope.decrypt(BytesIO(raw[HEADER:]), self._cipher(raw, key)))

        return await threads.run(decrypted)

    async def upload(
        self, key: str, source: Path, *, if_absent: bool = True, deadline: Deadline, progress: Progress | None = None
    ) -> None:
        """Store a file."""
        _checked(key)
        one = await self._encryption_key(deadline)
        async with _beside(source) as part:
            size = await threads.run(_encrypt_file, source, part, key, one, deadline)
            await self.inner.upload(
                key, part, if_absent=if_absent, deadline=deadline, progress=_of_content(progress, size)
            )

    async def download(
        self, key: str, target: Path, *, start: int = 0, deadline: Deadline, progress: Progress | None = None
    ) -> None:
        """Fetch an object into a file; one that does not decrypt leaves nothing behind."""
        _checked(key)
        await self._encryption_key(deadline)
        # From the frame before `start`, so that the object's end is always read.
        first = max(0, start - 1) // CONTENT
        async with _beside(target) as part:
            header = await self.inner.get(key, length=HEADER, deadline=deadline) if first else b""
            if first:
                await threads.run(os.truncate, part, HEADER + first * FRAME)
            await self.inner.download(
                key,
                part,
                start=HEADER + first * FRAME if first else 0,
                deadline=deadline,
                progress=_of_content(progress, None),
            )
            header = header or await threads.run(_header_of, part)
            if self._accept_plain and not start and not header.startswith(marker.MAGIC):
                await threads.run(part.replace, target)
                return
            one = await threads.run(self._cipher, header, key)
            await threads.run(_decrypt_file, part, target, one, key, start, deadline)

    async def list(self, prefix: str, *, after: str = "", deadline: Deadline) -> AsyncGenerator[ObjectInfo]:
        """Yield objects in the order of their keys, without the marker."""
        async with aclosing(self.inner.list(prefix, after=after, deadline=deadline)) as listing:
            async for info in listing:
                if info.key != marker.KEY:
                    yield replace(info, size_bytes=envelope.content_size(info.size_bytes))

    async def delete(self, key: str, *, deadline: Deadline) -> None:
        """Delete an object."""
        await self._encryption_key(deadline)
        await self.inner.delete(_checked(key), deadline=deadline)

    async def head(self, key: str, *, deadline: Deadline) -> ObjectInfo | None:
        """Return an object's facts, None when there is none."""
        info = await self.inner.head(_checked(key), deadline=deadline)
        return info and replace(info, size_bytes=envelope.content_size(info.size_bytes))

    async def share(self, key: str, *, seconds: int, deadline: Deadline) -> str | None:
        """Return None: the encrypted bytes would be of no use."""
        del key, seconds, deadline
        return None

    async def describe(self, *, deadline: Deadline) -> StoreDescription:
        """Describe the store, and which keys encrypt and decrypt it."""
        one = await self._encryption_key(deadline)
        others = tuple(key.id for key in self._keys.keys if key != one) if self._keys else ()
        return replace(await self.inner.describe(deadline=deadline), encrypted_with=one.id, decrypted_with=others)

    async def mark(self, *, deadline: Deadline) -> None:
        """Write into the marker that all is encrypted with the present key: nodes without it refuse the store."""
        one = await self._encryption_key(deadline)
        salt = self._keys.salt if self._keys else marker.new_salt()
        await marker.write(self.inner, Marker(key_id=one.id, salt=salt.hex()), if_absent=False, deadline=deadline)

    async def _encryption_key(self, deadline: Deadline) -> Key:
        """Return the key that encrypts: the first in the key file, if the marker allows it.

        The marker is read again after a while, and when the key file changes: a rotation applies from the next object
        on.
        """
        async with deadline.scope("reading the store's encryption marker"), self._looking:
            now, stamp = asyncio.get_running_loop().time(), await threads.run(self._source.stamp)
            known = self._keys
            if known is None or now - known.looked_at >= marker.LOOK_EVERY:
                known = await self._look(now, stamp, deadline)
            elif stamp != known.stamp:
                # A file that is being copied may have no key yet; the next call reads it again.
                with suppress(EncryptionKeyError):
                    known = await self._look(now, stamp, deadline)
            self._keys = known
            return known.keys[0]

    async def _look(self, now: float, stamp: tuple[int, ...], deadline: Deadline) -> _Keys:
        found = await marker.read(self.inner, deadline=deadline)
        salt = bytes.fromhex(found.salt) if found else self._keys.salt if self._keys else marker.new_salt()
        keys = await threads.run(self._source.load, salt)
        if found is None and keys:
            mine = Marker(key_id=keys[0].id, salt=salt.hex())
            await marker.write(self.inner, mine, if_absent=True, deadline=deadline)
            found = await marker.read(self.inner, deadline=deadline)
            if found is not None and found.salt != mine.salt:
                salt = bytes.fromhex(found.salt)
                keys = await threads.run(self._source.load, salt)
        if not keys or (found is not None and found.key_id not in {key.id for key in keys}):
            raise _no_key("the object store", found.key_id if found else "", keys)
        return _Keys(keys, now, salt, stamp)

    def _cipher(self, raw: bytes, name: str) -> ObjectCipher:
        """Return the cipher of the object that begins with `raw`; EncryptionKeyError if none of our keys fits."""
        header = envelope.parse(raw, name)
        keys = self._keys.keys if self._keys else ()
        key = next((one for one in keys if one.id == header.key_id), None)
        if key is None and self._keys is not None:
            # Encrypted anew while it was fetched, with a key that was added after these were read.
            keys = self._source.load(self._keys.salt)
            key = next((one for one in keys if one.id == header.key_id), None)
        if key is None:
            made = self._source.from_passphrase(header.key_salt)
            if made is None or made.id != header.key_id:
                raise _no_key(f"object {name}", header.key_id, keys)
            key = made
        return ObjectCipher(key, header, name)

    async def _range(self, key: str, start: int, length: int | None, *, deadline: Deadline) -> bytes:
        info = await self.inner.head(key, deadline=deadline)
        if info is None:
            raise ObjectMissingError(f"object {key} does not exist")
        frames, size = envelope.frames_of(info.size_bytes), envelope.content_size(info.size_bytes)
        end = size if length is None else min(size, start + length)
        if end - start > MAX_GET_BYTES:
            raise _too_large(key, end - start)
        first, last = min(start // CONTENT, frames - 1), min(max(start, end - 1) // CONTENT, frames - 1)
        header = await self.inner.get(key, length=HEADER, deadline=deadline)
        begin, stop = HEADER + first * FRAME, min(HEADER + (last + 1) * FRAME, info.size_bytes)
        raw = bytearray()
        while begin + len(raw) < stop:
            wanted = min(MAX_GET_BYTES, stop - begin - len(raw))
            piece = await self.inner.get(key, start=begin + len(raw), length=wanted, deadline=deadline)
            if not piece:
                break
            raw += piece

        def decrypted() -> bytes:
            one = self._cipher(header, key)
            content = b"".join(
                one.open(bytes(raw[at * FRAME : (at + 1) * FRAME]), first + at, last=first + at == frames - 1)
                for at in range(last - first + 1)
            )
            return content[start - first * CONTENT : max(start, end) - first * CONTENT]

        return await threads.run(decrypted)


def _checked(key: str) -> str:
    if checked_key(key) == marker.KEY:
        raise InvalidRequestError(f"the object key {key!r} is reserved for the marker of encryption", field="key")
    return key


def _no_key(what: str, key_id: str, keys: tuple[Key, ...]) -> EncryptionKeyError:
    ours = ", ".join(key.id for key in keys) or "none"
    return EncryptionKeyError(f"{what} is encrypted with key {key_id}, and this node has {ours}", remedy=COPY_KEY)


def _too_large(key: str, size: int) -> TooLargeError:
    return TooLargeError(f"object {key} has {size} bytes, at most {MAX_GET_BYTES} are read at once")


def _of_content(progress: Progress | None, size: int | None) -> Progress | None:
    """Return a callback that takes encrypted bytes and reports content, of `size` bytes if that is known."""
    if progress is None:
        return None
    report = progress

    def tell(done: int, total: int) -> None:
        content = envelope.content_size(total) if size is None and total else size or 0
        report(content if done == total else min(done, content), content)

    return tell


@asynccontextmanager
async def _beside(path: Path) -> AsyncGenerator[Path]:
    """Yield a new file of mode 0600 beside `path`, then remove it; after a crash the mirror's sweep removes it."""
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    with files.translated(part):
        await threads.run(_create, part)
    try:
        yield part
    finally:
        await threads.run(part.unlink, missing_ok=True)


def _create(part: Path) -> None:
    os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))


def _write(target: Path, pieces: Iterator[bytes], deadline: Deadline) -> None:
    with files.translated(target), target.open("wb") as file:
        for piece in pieces:
            file.write(piece)
            deadline.check(f"encrypting {target.name}")


def _encrypt_file(source: Path, target: Path, name: str, key: Key, deadline: Deadline) -> int:
    with files.translated(source), source.open("rb") as file:
        _write(target, envelope.encrypt(file, name, key), deadline)
        return os.fstat(file.fileno()).st_size


def _header_of(part: Path) -> bytes:
    with files.translated(part), part.open("rb") as file:
        return file.read(HEADER)


def _decrypt_file(part: Path, target: Path, one: ObjectCipher, name: str, start: int, deadline: Deadline) -> None:
    first = max(0, start - 1) // CONTENT
    with files.translated(target), part.open("rb") as encrypted, target.open("r+b" if start else "wb") as file:
        encrypted.seek(HEADER + first * FRAME)
        file.truncate(start)
        file.seek(start)
        try:
            skip = start - first * CONTENT
            for content in envelope.decrypt(encrypted, one, first=first):
                file.write(content[skip:])
                skip = max(0, skip - len(content))
                deadline.check(f"decrypting {name}")
            _check_reached(name, start, skip)
        except BaseException:
            # What remains will be found damaged; raise the first error instead.
            with suppress(OSError):
                file.truncate(start)
                if not start:
                    target.unlink(missing_ok=True)
            raise


def _check_reached(name: str, start: int, short_of_it: int) -> None:
    if short_of_it:
        raise CorruptObjectError(f"object {name} ends before byte {start}")
