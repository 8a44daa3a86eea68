"""Seal what a store holds already: objects from before encryption was on, and those of a key that is being retired.

Each object is replaced by its sealed self under the same name, one after the other, so that a run that was broken off
is simply run again. What was unsealed is taken as it is: this is the moment at which its owner vouches for the store.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from membridge import blocking
from membridge.deadline import Deadline
from membridge.errors import ObjectMissingError
from membridge.objectstore import sealing
from membridge.objectstore.marker import MAGIC
from membridge.objectstore.protocol import ObjectStore
from membridge.objectstore.sealed import SealedStore


@dataclass(frozen=True, slots=True)
class Resealed:
    """How many objects were unsealed, sealed with an older key, and fine already."""

    unsealed: int = 0
    older: int = 0
    kept: int = 0


async def reseal(
    store: SealedStore,
    prefix: str,
    work: Path,
    *,
    deadline: Callable[[], Deadline],
    progress: Callable[[int, int], None],
) -> Resealed:
    """Seal every object under `prefix` with the present key; `work` is a folder for one object at a time.

    `store` must have been made with `take_unsealed`; `deadline` gives each object its own. Nodes may go on meanwhile.
    """
    described = await store.describe(deadline=deadline())
    keys = [info.key async for info in store.inner.list(prefix, deadline=deadline())]
    unsealed = older = kept = 0
    for done, key in enumerate(keys, 1):
        try:
            header = await store.inner.get(key, length=sealing.HEADER, deadline=deadline())
            if not header.startswith(MAGIC):
                await _again(store, key, work / "object", deadline())
                unsealed += 1
            elif sealing.parse(header, key).key_id != described.sealed_with:
                await _again(store, key, work / "object", deadline())
                older += 1
            else:
                kept += 1
        except ObjectMissingError:
            # Deleted since it was listed.
            kept += 1
        progress(done, len(keys))
    return Resealed(unsealed, older, kept)


async def _again(store: ObjectStore, key: str, path: Path, deadline: Deadline) -> None:
    try:
        await store.download(key, path, deadline=deadline)
        await store.upload(key, path, if_absent=False, deadline=deadline)
    finally:
        await blocking.run(path.unlink, missing_ok=True)
