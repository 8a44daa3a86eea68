"""The shared configuration of a project in the object store and in KV: read, and moved on by one writer at a time.

A state is one immutable object whose key no other push can choose. The head in KV moves by compare-and-set, so of
two pushes at once one fails and changes nothing. KV that lost its memory gets the head back from the newest object.
"""

import hashlib
import secrets
from collections.abc import Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass

import msgspec
import zstandard

from membridge.aio import threads
from membridge.aio.deadline import Deadline
from membridge.bus.kv import Kv
from membridge.claudeconfig.three_way import Leaf
from membridge.errors import (
    CorruptObjectError,
    HeadMovedError,
    MembridgeError,
    ObjectMissingError,
    RevisionMovedError,
    TooLargeError,
    UnsupportedFormatError,
)
from membridge.objectstore.protocol import ObjectStore
from membridge.system import clock
from schemas.claude_config import CONFIG_FORMAT, MOST_STATE, ConfigFile, ConfigHead, ConfigState
from schemas.identity import NodeId, ProjectId, Seq

#: States before the head that are kept.
KEPT = 8
#: Bytes of a state's JSON: base64 and names on top of the files.
_MOST_JSON = 3 * MOST_STATE
_SEQ_DIGITS = 12
_DECODER = msgspec.json.Decoder(ConfigState)
PUSH_AGAIN = "run `membridge claude-config push` on the machine that has the newest configuration"


@dataclass(frozen=True, slots=True)
class Shared:
    """The stores of one project's configuration, and who writes."""

    store: ObjectStore
    heads: Kv[ConfigHead]
    project: ProjectId
    node: NodeId

    def prefix(self) -> str:
        """Return the prefix of all states; below the project's, so that sealing covers them."""
        return f"projects/{self.project}/claude-config/"

    def key(self, head: ConfigHead) -> str:
        """Return the key of a state's object."""
        return f"{self.prefix()}{head.seq:0{_SEQ_DIGITS}d}-{head.nonce}.zst"


@dataclass(frozen=True, slots=True)
class KnownState:
    """The head as it was read, and its files; `revision` is 0 where KV has lost it."""

    head: ConfigHead
    revision: int
    files: list[ConfigFile]


@dataclass(frozen=True, slots=True)
class LostState:
    """A head whose object cannot be read, and why."""

    head: ConfigHead
    revision: int
    error: MembridgeError


async def read(shared: Shared, *, deadline: Deadline) -> KnownState | LostState | None:
    """Return the newest state, None for a project without one."""
    entry = await shared.heads.get(shared.project, deadline=deadline)
    if entry is None:
        return await _newest(shared, deadline=deadline)
    try:
        state = await _fetch(shared, entry.value, deadline=deadline)
    except (ObjectMissingError, CorruptObjectError) as error:
        # A push may have moved on and pruned while we looked.
        again = await shared.heads.get(shared.project, deadline=deadline)
        if again is not None and again.revision != entry.revision:
            return await read(shared, deadline=deadline)
        return LostState(entry.value, entry.revision, type(error)(error.message, remedy=PUSH_AGAIN))
    return KnownState(entry.value, entry.revision, state.files)


async def commit(
    shared: Shared, files: Mapping[str, Leaf], known: KnownState | LostState | None, *, deadline: Deadline
) -> ConfigHead:
    """Make `files` the newest state after `known`; return its head.

    Errors: TooLargeError, HeadMovedError when another machine pushed meanwhile; then nothing has changed.
    """
    _check_size(files)
    nonce = secrets.token_hex(8)
    state = ConfigState(
        project=shared.project,
        seq=known.head.seq + 1 if known else 1,
        nonce=nonce,
        parent=known.head.nonce if known else "",
        lineage=known.head.lineage if known else nonce,
        node=shared.node,
        created_at=clock.stamp(),
        files=as_files(files),
    )
    body = await threads.run(pack, state)
    head = _head_of(state, body)
    await shared.store.put(shared.key(head), body, deadline=deadline)
    await _move(shared, head, known.revision if known else 0, deadline=deadline)
    # What is left over goes with the next push.
    with suppress(MembridgeError):
        await _prune(shared, head.seq, deadline=deadline)
    return head


def as_files(files: Mapping[str, Leaf]) -> list[ConfigFile]:
    """Return files in the form that travels, in the order of their paths."""
    return [ConfigFile(path=path, executable=files[path].executable, body=files[path].body) for path in sorted(files)]


def pack(state: ConfigState) -> bytes:
    """Return a state as the bytes of its object."""
    return zstandard.ZstdCompressor(level=9, write_checksum=True).compress(msgspec.json.encode(state))


def unpack(body: bytes, name: str) -> ConfigState:
    """Return the state in an object's bytes, never more than the bound.

    Errors: CorruptObjectError, UnsupportedFormatError for one that a newer version wrote.
    """
    try:
        with zstandard.ZstdDecompressor().stream_reader(body) as reader:
            content = reader.read(_MOST_JSON + 1)
        if len(content) > _MOST_JSON:
            raise CorruptObjectError(f"{name} is larger than {_MOST_JSON} bytes")
        newer = msgspec.json.decode(content, type=_Format).format
        if newer > CONFIG_FORMAT:
            raise UnsupportedFormatError(f"{name} has format {newer}, this version reads format {CONFIG_FORMAT}")
        return _DECODER.decode(content)
    except (zstandard.ZstdError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptObjectError(f"{name} cannot be read: {error}") from error


class _Format(msgspec.Struct):
    format: int = 1


async def _fetch(shared: Shared, head: ConfigHead, *, deadline: Deadline) -> ConfigState:
    key = shared.key(head)
    body = await shared.store.get(key, deadline=deadline)
    if hashlib.sha256(body).hexdigest() != head.sha256:
        raise CorruptObjectError(f"object {key} is damaged: its sha256 is not that of the head")
    state = await threads.run(unpack, body, f"object {key}")
    if (state.project, state.seq, state.nonce) != (shared.project, head.seq, head.nonce):
        raise CorruptObjectError(f"object {key} is another state than its name says")
    return state


async def _newest(shared: Shared, *, deadline: Deadline) -> KnownState | None:
    """Return the newest state that the object store has and that can be read."""
    for key in reversed(await _keys(shared, deadline=deadline)):
        try:
            body = await shared.store.get(key, deadline=deadline)
            state = await threads.run(unpack, body, f"object {key}")
        except (ObjectMissingError, CorruptObjectError):
            continue
        head = _head_of(state, body)
        if state.project == shared.project and shared.key(head) == key:
            return KnownState(head, 0, state.files)
    return None


def _head_of(state: ConfigState, body: bytes) -> ConfigHead:
    return ConfigHead(
        seq=state.seq,
        nonce=state.nonce,
        lineage=state.lineage,
        sha256=hashlib.sha256(body).hexdigest(),
        node=state.node,
        created_at=state.created_at,
    )


async def _move(shared: Shared, head: ConfigHead, revision: int, *, deadline: Deadline) -> None:
    try:
        await shared.heads.move(
            shared.project, head, revision=revision, nonce=lambda value: value.nonce, deadline=deadline
        )
    except RevisionMovedError as error:
        raise HeadMovedError(
            "another machine pushed its configuration at the same time, so nothing was sent",
            remedy="run `membridge claude-config push` again",
        ) from error


async def _keys(shared: Shared, *, deadline: Deadline) -> list[str]:
    async with aclosing(shared.store.list(shared.prefix(), deadline=deadline)) as listing:
        return [info.key async for info in listing]


async def _prune(shared: Shared, newest: Seq, *, deadline: Deadline) -> None:
    """Delete states that are older than the kept ones, and what pushes that failed left among them."""
    for key in await _keys(shared, deadline=deadline):
        digits = key.removeprefix(shared.prefix()).partition("-")[0]
        if digits.isdecimal() and int(digits) < newest - KEPT:
            await shared.store.delete(key, deadline=deadline)


def _check_size(files: Mapping[str, Leaf]) -> None:
    total = sum(len(leaf.body) for leaf in files.values())
    if total > MOST_STATE:
        largest = sorted(files, key=lambda path: -len(files[path].body))[:3]
        raise TooLargeError(
            f"the configuration has {total:,} bytes, at most {MOST_STATE:,} travel; the largest files are "
            f"{', '.join(largest)}",
            remedy="move files that other machines do not need out of these folders",
        )
