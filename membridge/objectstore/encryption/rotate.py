"""Encrypt what a store already holds: objects from before encryption was on, and those of a key being retired.

Each object is replaced under the same name, one after the other, so an interrupted run is simply repeated. Plain
objects are trusted: by running this the store's owner vouches for them.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from membridge.aio import threads
from membridge.aio.deadline import Deadline
from membridge.errors import ObjectMissingError
from membridge.objectstore.encryption import envelope
from membridge.objectstore.encryption.marker import MAGIC
from membridge.objectstore.encryption.store import EncryptedStore
from membridge.objectstore.protocol import ObjectStore


@dataclass(frozen=True, slots=True)
class Reencrypted:
    """How many objects were plain, encrypted with an older key, and fine already."""

    unsealed: int = 0
    older: int = 0
    kept: int = 0


async def reencrypt(
    store: EncryptedStore,
    prefix: str,
    work: Path,
    *,
    deadline: Callable[[], Deadline],
    progress: Callable[[int, int], None],
) -> Reencrypted:
    """Encrypt every object under `prefix` with the present key; `work` is a folder for one object at a time.

    `store` needs `accept_plain`; `deadline` gives each object its own. Nodes may go on meanwhile: the run also covers
    what they store until it ends.
    """
    described = await store.describe(deadline=deadline())
    seen: set[str] = set()
    found: Counter[_Was] = Counter()
    while fresh := [info.key async for info in store.inner.list(prefix, deadline=deadline()) if info.key not in seen]:
        total = len(seen) + len(fresh)
        for key in fresh:
            found[await _encrypted_anew(store, key, described.encrypted_with, work / "object", deadline)] += 1
            seen.add(key)
            progress(found.total(), total)
    return Reencrypted(found[_Was.UNSEALED], found[_Was.OLDER], found[_Was.FINE])


class _Was(Enum):
    """The state in which an object was found."""

    UNSEALED = auto()
    OLDER = auto()
    FINE = auto()


async def _encrypted_anew(
    store: EncryptedStore, key: str, key_id: str, work: Path, deadline: Callable[[], Deadline]
) -> _Was:
    """Encrypt one object with the key `key_id` if it is not yet; return the state in which it was."""
    try:
        header = await store.inner.get(key, length=envelope.HEADER, deadline=deadline())
        encrypted = header.startswith(MAGIC)
        if encrypted and envelope.parse(header, key).key_id == key_id:
            return _Was.FINE
        await _again(store, key, work, deadline())
    except ObjectMissingError:
        # Deleted after it was listed.
        return _Was.FINE
    return _Was.OLDER if encrypted else _Was.UNSEALED


async def _again(store: ObjectStore, key: str, path: Path, deadline: Deadline) -> None:
    try:
        await store.download(key, path, deadline=deadline)
        await store.upload(key, path, if_absent=False, deadline=deadline)
    finally:
        await threads.run(path.unlink, missing_ok=True)
