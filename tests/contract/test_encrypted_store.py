"""What the operator of a store sees and may do when it is sealed: nothing to read, and nothing that is not found."""

import secrets
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import pytest

from membridge.aio.deadline import Deadline
from membridge.bus.connection import Bus
from membridge.errors import CorruptObjectError, EncryptionKeyError, InvalidRequestError, MembridgeError
from membridge.objectstore.encryption import marker
from membridge.objectstore.encryption.envelope import CONTENT, FRAME, HEADER
from membridge.objectstore.encryption.guard import PlainStore
from membridge.objectstore.encryption.keys import Key, KeySource, new_key, write_file
from membridge.objectstore.encryption.rotate import Reencrypted, reencrypt
from membridge.objectstore.encryption.store import EncryptedStore
from membridge.objectstore.protocol import ObjectInfo, ObjectStore
from tests.fixtures.lanes import opened_store

SECRET = b"the memory that nobody else may read"
#: Three frames.
LONG = SECRET * (2 * CONTENT // len(SECRET) + 100)


def soon() -> Deadline:
    return Deadline.after(60.0)


@pytest.fixture(params=["jetstream", "s3"])
async def inner(request: pytest.FixtureRequest, bus: Bus) -> AsyncGenerator[ObjectStore]:
    """The store as its operator has it."""
    options = request.getfixturevalue("s3_options") if request.param == "s3" else None
    async with opened_store(str(request.param), bus, options) as store:
        yield store


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "keys" / "sealing.keys"
    write_file(path, [new_key()])
    return path


@pytest.fixture
def store(inner: ObjectStore, key_file: Path) -> EncryptedStore:
    return EncryptedStore(inner, KeySource(file=key_file))


async def contents(store: ObjectStore) -> dict[str, bytes]:
    return {info.key: await store.get(info.key, deadline=soon()) async for info in store.list("", deadline=soon())}


def beginning(folder: Path, name: str) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(name)]


def contents_of(path: Path) -> bytes:
    return path.read_bytes()


def copy_into(path: Path, body: bytes) -> None:
    path.write_bytes(body)


def share(path: Path, mode: int) -> None:
    path.chmod(mode)


async def fails(store: ObjectStore, key: str, folder: Path, kind: type[MembridgeError]) -> str:
    """Read an object by every way there is; each fails as `kind` and leaves nothing. Return what was said."""
    said: set[str] = set()
    for start, length in ((0, None), (0, 10), (CONTENT + 5, 10)):
        with pytest.raises(kind) as caught:
            await store.get(key, start=start, length=length, deadline=soon())
        said.add(caught.value.message)
    target = folder / "target"
    with pytest.raises(kind) as caught:
        await store.download(key, target, deadline=soon())
    assert not target.exists()
    assert beginning(folder, "target") == []
    (message,) = said | {caught.value.message}
    assert "\n" not in message
    return message


async def test_no_byte_of_what_is_stored_shows(store: EncryptedStore, inner: ObjectStore, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(LONG)
    await store.put("a", SECRET, deadline=soon())
    await store.upload("b", source, deadline=soon())
    raw = await contents(inner)
    assert sorted(raw) == ["a", "b", marker.KEY]
    assert not [key for key, body in raw.items() if SECRET[:8] in body]
    assert beginning(tmp_path, "source") == ["source"]


async def test_two_objects_that_were_exchanged_are_found(
    store: EncryptedStore, inner: ObjectStore, tmp_path: Path
) -> None:
    await store.put("a", LONG, deadline=soon())
    await store.put("b", LONG, deadline=soon())
    raw = await contents(inner)
    await inner.put("a", raw["b"], if_absent=False, deadline=soon())
    assert "object a was damaged or exchanged" in await fails(store, "a", tmp_path, CorruptObjectError)
    assert await store.get("b", deadline=soon()) == LONG


async def test_a_cut_a_longer_and_an_unsealed_object_are_found(
    store: EncryptedStore, inner: ObjectStore, tmp_path: Path
) -> None:
    await store.put("a", LONG, deadline=soon())
    raw = (await contents(inner))["a"]
    target = tmp_path / "target"
    for changed in (raw[: HEADER + 2 * FRAME], raw[:-1], raw + b"x", raw[: HEADER + FRAME] + raw[HEADER:]):
        await inner.put("a", changed, if_absent=False, deadline=soon())
        with pytest.raises(CorruptObjectError):
            await store.get("a", deadline=soon())
        target.write_bytes(LONG[: CONTENT + 9])
        with pytest.raises(CorruptObjectError):
            await store.download("a", target, start=CONTENT + 9, deadline=soon())
        assert target.read_bytes() == LONG[: CONTENT + 9]
        with pytest.raises(CorruptObjectError):
            await store.get("a", start=len(LONG) + 1_000_000, length=5, deadline=soon())
    await inner.put("a", LONG, if_absent=False, deadline=soon())
    target.unlink()
    assert "run `membridge key seal`" in (await _caught(store, "a")).remedy
    assert "not encrypted" in await fails(store, "a", tmp_path, CorruptObjectError)


async def test_ranges_and_resumed_downloads_cross_frames(store: EncryptedStore, tmp_path: Path) -> None:
    await store.put("a", LONG, deadline=soon())
    for start in (0, 1, CONTENT - 1, CONTENT, CONTENT + 1, 2 * CONTENT, len(LONG) - 1, len(LONG)):
        for length in (1, 2, CONTENT, CONTENT + 1, None):
            expected = LONG[start:] if length is None else LONG[start : start + length]
            assert await store.get("a", start=start, length=length, deadline=soon()) == expected
        target = tmp_path / "target"
        target.write_bytes(LONG[:start])
        await store.download("a", target, start=start, deadline=soon())
        assert target.read_bytes() == LONG


async def test_a_node_with_another_key_is_told_which_and_writes_nothing(
    store: EncryptedStore, inner: ObjectStore, tmp_path: Path
) -> None:
    await store.put("a", LONG, deadline=soon())
    mine = (await store.describe(deadline=soon())).encrypted_with
    write_file(tmp_path / "other.keys", [other := new_key()])
    strangers: list[tuple[ObjectStore, str]] = [
        (EncryptedStore(inner, KeySource(file=tmp_path / "other.keys")), other.id),
        (EncryptedStore(inner, KeySource(passphrase="not the right one")), ""),
        (PlainStore(inner), "no key"),
    ]
    before = await contents(inner)
    for stranger, has in strangers:
        assert f"encrypted with key {mine}, and this node has {has}" in await fails(
            stranger, "a", tmp_path, EncryptionKeyError
        )
        with pytest.raises(EncryptionKeyError) as caught:
            await stranger.put("new", b"x", deadline=soon())
        assert "MEMBRIDGE_ENCRYPTION_KEY_FILE" in caught.value.remedy
        with pytest.raises(EncryptionKeyError):
            await stranger.delete("a", deadline=soon())
    assert await contents(inner) == before


async def test_without_the_marker_each_object_still_says_which_key_it_needs(
    store: EncryptedStore, inner: ObjectStore, tmp_path: Path
) -> None:
    await store.put("a", LONG, deadline=soon())
    mine = (await store.describe(deadline=soon())).encrypted_with
    await inner.delete(marker.KEY, deadline=soon())
    plain = PlainStore(inner)
    for read in (plain.get("a", deadline=soon()), plain.download("a", tmp_path / "target", deadline=soon())):
        with pytest.raises(EncryptionKeyError, match=f"encrypted with key {mine}"):
            await read
    assert not (tmp_path / "target").exists()
    write_file(tmp_path / "other.keys", [new_key()])
    other = EncryptedStore(inner, KeySource(file=tmp_path / "other.keys"))
    assert f"object a is encrypted with key {mine}" in await fails(other, "a", tmp_path, EncryptionKeyError)


async def test_a_passphrase_opens_what_it_sealed_on_any_node_and_after_the_marker_was_lost(inner: ObjectStore) -> None:
    first = EncryptedStore(inner, KeySource(passphrase="correct horse battery"))
    await first.put("a", SECRET, deadline=soon())
    second = EncryptedStore(inner, KeySource(passphrase="correct horse battery"))
    assert await second.get("a", deadline=soon()) == SECRET
    await inner.delete(marker.KEY, deadline=soon())
    third = EncryptedStore(inner, KeySource(passphrase="correct horse battery"))
    await third.put("b", SECRET, deadline=soon())
    assert await third.get("a", deadline=soon()) == await second.get("b", deadline=soon()) == SECRET


async def test_a_rotated_key_seals_and_the_old_one_opens_until_all_is_sealed_anew(
    inner: ObjectStore, key_file: Path, tmp_path: Path
) -> None:
    store = EncryptedStore(inner, KeySource(file=key_file))
    await store.put("p/old", SECRET, deadline=soon())
    first = (await store.describe(deadline=soon())).encrypted_with
    fresh, *_ = keys = (new_key(), *KeySource(file=key_file).load(b""))
    write_file(key_file, keys)

    rotated = EncryptedStore(inner, KeySource(file=key_file), accept_plain=True)
    await rotated.put("p/new", SECRET, deadline=soon())
    described = await rotated.describe(deadline=soon())
    assert (described.encrypted_with, described.decrypted_with) == (fresh.id, (first,))
    assert await rotated.get("p/old", deadline=soon()) == SECRET
    assert await store.get("p/new", deadline=soon()) == SECRET

    await inner.put("p/plain", LONG, deadline=soon())
    found = await reencrypt(rotated, "p/", tmp_path, deadline=soon, progress=lambda _, __: None)
    await rotated.mark(deadline=soon())
    assert found == Reencrypted(unsealed=1, older=1, kept=1)
    write_file(key_file, [fresh])
    alone = EncryptedStore(inner, KeySource(file=key_file))
    assert await contents(alone) == {"p/new": SECRET, "p/old": SECRET, "p/plain": LONG}
    assert (await reencrypt(rotated, "p/", tmp_path, deadline=soon, progress=lambda _, __: None)).kept == 3


async def test_a_rotation_reaches_a_running_node(
    inner: ObjectStore, key_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = EncryptedStore(inner, KeySource(file=key_file))
    await store.put("a", SECRET, deadline=soon())
    write_file(key_file, [fresh := new_key(), *KeySource(file=key_file).load(b"")])
    after = contents_of(key_file)
    # A copy that is under way, and one that ends: what there was goes on until the new key is whole.
    for body, seals in ((b"", False), (after[: len(after) // 2], False), (after, True)):
        copy_into(key_file, body)
        await store.put(f"part-{len(body)}", SECRET, deadline=soon())
        assert ((await store.describe(deadline=soon())).encrypted_with == fresh.id) is seals
    monkeypatch.setattr(marker, "LOOK_EVERY", 0.0)
    assert (await store.describe(deadline=soon())).encrypted_with == fresh.id
    share(key_file, 0o644)
    with pytest.raises(EncryptionKeyError, match="other users have access"):
        await store.get("a", deadline=soon())
    share(key_file, 0o600)
    assert await store.get("a", deadline=soon()) == SECRET


async def test_what_is_sealed_anew_while_it_is_fetched_opens(
    inner: ObjectStore, key_file: Path, tmp_path: Path
) -> None:
    class Slow(EncryptedStore):
        """A store in which everything is rotated and sealed anew between the look at the key and the answer."""

        async def _encryption_key(self, deadline: Deadline) -> Key:
            found = await super()._encryption_key(deadline)
            write_file(key_file, [new_key(), *KeySource(file=key_file).load(b"")])
            other = EncryptedStore(inner, KeySource(file=key_file), accept_plain=True)
            await reencrypt(other, "p/", tmp_path, deadline=soon, progress=lambda _, __: None)
            return found

    await EncryptedStore(inner, KeySource(file=key_file)).put("p/a", LONG, deadline=soon())
    slow = Slow(inner, KeySource(file=key_file))
    assert await slow.get("p/a", deadline=soon()) == LONG
    assert await slow.get("p/a", start=CONTENT, length=100, deadline=soon()) == LONG[CONTENT : CONTENT + 100]
    await slow.download("p/a", tmp_path / "fetched", deadline=soon())
    assert (tmp_path / "fetched").read_bytes() == LONG


async def test_what_a_node_stores_while_all_is_sealed_anew_is_sealed_anew_too(
    inner: ObjectStore, key_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = EncryptedStore(inner, KeySource(file=key_file))
    for name in ("p/1", "p/late"):
        await old.put(name, SECRET, deadline=soon())
    late = [await inner.get("p/late", deadline=soon())]
    await inner.delete("p/late", deadline=soon())
    write_file(key_file, [fresh := new_key(), *KeySource(file=key_file).load(b"")])
    really = inner.list

    async def listing(prefix: str, *, after: str = "", deadline: Deadline) -> AsyncIterator[ObjectInfo]:
        async for info in really(prefix, after=after, deadline=deadline):
            yield info
        if late:
            await inner.put("p/late", late.pop(), deadline=deadline)

    monkeypatch.setattr(inner, "list", listing)
    store = EncryptedStore(inner, KeySource(file=key_file), accept_plain=True)
    found = await reencrypt(store, "p/", tmp_path, deadline=soon, progress=lambda _, __: None)
    assert found == Reencrypted(older=2)
    await store.mark(deadline=soon())
    write_file(key_file, [fresh])
    assert await contents(EncryptedStore(inner, KeySource(file=key_file))) == {"p/1": SECRET, "p/late": SECRET}


async def test_a_node_without_a_key_sees_that_encryption_was_turned_on(
    inner: ObjectStore, store: EncryptedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = PlainStore(inner)
    await plain.put("before", b"x", deadline=soon())
    await store.put("a", SECRET, deadline=soon())
    monkeypatch.setattr(marker, "LOOK_EVERY", 0.0)
    with pytest.raises(EncryptionKeyError):
        await plain.put("after", b"x", deadline=soon())
    assert [info.key async for info in plain.list("", deadline=soon())] == ["a", "before", marker.KEY]


async def test_the_marker_is_nobody_elses_and_a_damaged_one_is_named(store: EncryptedStore, inner: ObjectStore) -> None:
    for call in (store.put(marker.KEY, b"x", deadline=soon()), store.delete(marker.KEY, deadline=soon())):
        with pytest.raises(InvalidRequestError):
            await call
    for body in (b"", b"{}", secrets.token_bytes(50), b'{"key_id":"../x","salt":""}'):
        await inner.put(marker.KEY, body, if_absent=False, deadline=soon())
        fresh = EncryptedStore(inner, KeySource(passphrase="correct horse battery"))
        with pytest.raises(CorruptObjectError, match=r"sealing\.json, the marker of an encrypted store, is damaged"):
            await fresh.get("a", deadline=soon())


async def _caught(store: ObjectStore, key: str) -> MembridgeError:
    with pytest.raises(MembridgeError) as caught:
        await store.get(key, deadline=soon())
    return caught.value
