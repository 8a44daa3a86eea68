"""Tags: names for snapshots, kept in the object store, so that they outlive NATS.

Retention keeps tagged snapshots. Tags are set and snapshots deleted under the push lease, so that no snapshot is
deleted while it is being tagged.
"""

from contextlib import suppress

from membridge.aio import tasks
from membridge.aio.deadline import Deadline
from membridge.commits import layout
from membridge.commits.replica import Replica
from membridge.errors import (
    ConflictError,
    CorruptObjectError,
    InvalidRequestError,
    NotFoundError,
    ObjectExistsError,
    ObjectMissingError,
)
from membridge.system import clock
from schemas.commits import Tag
from schemas.identity import TOKEN
from schemas.snapshot import SnapshotRecord
from schemas.wire import WireError, decode, encode

#: Names with a meaning of their own where a state is named.
RESERVED = frozenset({"head"})
#: Tags read at once.
READERS = 8


async def listed(replica: Replica, *, deadline: Deadline) -> list[Tag]:
    """Return the tags, by name. Errors: CorruptObjectError for a tag that cannot be read: it may protect a snapshot."""
    keys = [info.key async for info in replica.store.list(layout.tags(replica.project), deadline=deadline)]
    found: list[Tag] = []

    async def one(key: str) -> None:
        with suppress(ObjectMissingError):  # deleted meanwhile
            found.append(_read(replica, key, await replica.store.get(key, deadline=deadline)))

    await tasks.each(keys, one, at_once=READERS)
    return sorted(found, key=lambda tag: tag.name)


async def find(replica: Replica, name: str, *, deadline: Deadline) -> Tag:
    """Return a tag. Errors: NotFoundError, CorruptObjectError."""
    key = layout.tag(replica.project, checked(name))
    try:
        return _read(replica, key, await replica.store.get(key, deadline=deadline))
    except ObjectMissingError as error:
        raise NotFoundError(f"there is no tag {name}", remedy="run `membridge tag --list`") from error


async def put(replica: Replica, name: str, record: SnapshotRecord, *, move: bool, deadline: Deadline) -> Tag:
    """Give `record` a name; `move` takes the name from another snapshot. Setting it twice is fine.

    Errors: ConflictError when the name is another snapshot's, InvalidRequestError for an invalid name.
    """
    tag = Tag(
        project=replica.project,
        name=checked(name),
        seq=record.seq,
        sha256=record.sha256,
        node=replica.node,
        created_at=clock.stamp(),
    )
    try:
        await replica.store.put(layout.tag(replica.project, name), encode(tag), if_absent=not move, deadline=deadline)
    except ObjectExistsError as error:
        known = await find(replica, name, deadline=deadline)
        if known.seq == tag.seq:
            return known
        raise ConflictError(
            f"tag {name} already names snapshot {known.seq}",
            remedy=f"to move it run `membridge tag {name} {tag.seq} --move`",
        ) from error
    return tag


async def delete(replica: Replica, name: str, *, deadline: Deadline) -> Tag:
    """Delete a tag and return what it was. Errors: NotFoundError."""
    tag = await find(replica, name, deadline=deadline)
    await replica.store.delete(layout.tag(replica.project, name), deadline=deadline)
    return tag


def checked(name: str) -> str:
    """Return `name`, or raise InvalidRequestError for what cannot name a snapshot."""
    if not TOKEN.fullmatch(name):
        raise InvalidRequestError(f"{name!r} is not a valid tag: use 1 to 64 of A-Z a-z 0-9 _ -", field="name")
    if name in RESERVED or name.isdecimal():
        raise InvalidRequestError(f"{name} cannot be a tag: it already names a snapshot", field="name")
    return name


def _read(replica: Replica, key: str, body: bytes) -> Tag:
    name = key.rpartition("/")[2].removesuffix(".json")
    remedy = f"set it again: `membridge tag {name} SEQ --move`"
    try:
        tag = decode(body, Tag)
    except WireError as error:
        raise CorruptObjectError(f"object {key} is not a valid tag: {error}", remedy=remedy) from error
    if layout.tag(replica.project, tag.name) != key or tag.project != replica.project:
        raise CorruptObjectError(f"object {key} holds another tag", remedy=remedy)
    return tag
