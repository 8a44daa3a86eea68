"""The keys that seal cookies: the same on every server, rotated, made again when NATS lost them."""

import asyncio
from datetime import timedelta

import pytest

from membridge.aio.deadline import Deadline
from membridge.bus.connection import Bus, connect
from membridge.bus.kv import Kv
from membridge.bus.options import BusOptions
from membridge.errors import MembridgeError
from membridge.system import clock
from membridge.wiring.bus import ensure
from schemas import buckets
from schemas.web import SessionSecret
from services.web import sealing
from services.web.sealing import SealingKeys
from services.web.service import admitting
from tests.fixtures.nats import QUICK, Restartable
from tests.fixtures.pace import pause


def soon() -> Deadline:
    return Deadline.after(10.0)


async def bucket(bus: Bus) -> Kv[SessionSecret]:
    """Return the bucket of the keys, which exists."""
    await ensure(bus, (), buckets.WEB, replicas=1, deadline=soon())
    return Kv(bus, buckets.SESSION_SECRET)


async def agreed(kv: Kv[SessionSecret], count: int) -> list[SealingKeys]:
    """Return the keys of so many servers that start at once."""
    found = [SealingKeys(kv) for _ in range(count)]
    async with asyncio.TaskGroup() as group:
        for one in found:
            group.create_task(one.agree(soon()))
    return found


async def made(kv: Kv[SessionSecret]) -> SessionSecret:
    """Return what the bucket has."""
    entry = await kv.get("cookies", deadline=soon())
    assert entry is not None
    return entry.value


async def aged(kv: Kv[SessionSecret], seconds: float) -> None:
    """Let the key have been made so many seconds ago."""
    at = clock.stamp(clock.now() - timedelta(seconds=seconds))
    old = await made(kv)
    await kv.put("cookies", SessionSecret(secret=old.secret, made_at=at, previous=old.previous), deadline=soon())


async def test_servers_that_start_at_once_have_one_key(bus: Bus) -> None:
    first, *others = await agreed(await bucket(bus), 8)
    sealed = first.seal(b"content")
    assert [one.unseal(sealed) for one in others] == [b"content"] * 7


async def test_a_key_is_rotated_after_a_day_and_opens_what_it_sealed_for_another(bus: Bus) -> None:
    kv = await bucket(bus)
    [keys] = await agreed(kv, 1)
    first, sealed = await made(kv), keys.seal(b"content")
    await aged(kv, sealing.ROTATE - 60)
    await keys.agree(soon())
    assert (await made(kv)).secret == first.secret
    await aged(kv, sealing.ROTATE + 60)
    # Of several that see its age at once, one makes the next key.
    others = await agreed(kv, 4)
    second = await made(kv)
    assert second.secret != first.secret
    assert second.previous == first.secret
    assert [one.unseal(sealed) for one in others] == [b"content"] * 4
    await aged(kv, sealing.ROTATE + 60)
    await keys.agree(soon())
    assert keys.unseal(sealed) is None


async def test_a_new_key_seals_only_once_every_server_has_had_time_to_read_it(bus: Bus) -> None:
    kv = await bucket(bus)
    [late] = await agreed(kv, 1)
    await aged(kv, sealing.ROTATE + 60)
    [early] = await agreed(kv, 1)
    assert late.unseal(early.seal(b"content")) == b"content"
    await aged(kv, sealing.SETTLE + 1)
    await early.agree(soon())
    assert late.unseal(early.seal(b"content")) is None


async def test_a_key_without_a_date_is_replaced(bus: Bus) -> None:
    kv = await bucket(bus)
    await kv.put("cookies", SessionSecret(secret="s"), deadline=soon())
    await agreed(kv, 1)
    assert (await made(kv)).previous == "s"


async def test_servers_have_one_key_again_after_nats_came_back_empty(restartable: Restartable) -> None:
    options = BusOptions(urls=(restartable.url,), name="test", pace=QUICK)
    async with connect(options, deadline=soon()) as bus:
        await bucket(bus)
        async with admitting(bus) as old:
            before, generation = old.sessions._sealing.seal(b"content"), bus.generation
            restartable.stop()
            restartable.wipe()
            restartable.start()
            await bus.wait_generation(generation)
            await bucket(bus)
            async with admitting(bus) as new, asyncio.timeout(20.0):
                while not _same(old.sessions._sealing, new.sessions._sealing):
                    await pause()
                # Who had that NATS's store cannot use it any longer.
                assert new.sessions._sealing.unseal(before) is None


async def test_deleting_the_key_ends_every_session_and_the_servers_make_another(bus: Bus) -> None:
    kv = await bucket(bus)
    async with admitting(bus) as one, admitting(bus) as other, asyncio.timeout(20.0):
        keys = one.sessions._sealing
        sealed = keys.seal(b"content")
        # As `nats kv del` does.
        await kv.delete("cookies", deadline=soon())
        while not _same(keys, other.sessions._sealing) or keys.unseal(sealed):
            await pause()
        assert (await made(kv)).previous == ""


def _same(one: SealingKeys, other: SealingKeys) -> bool:
    try:
        return other.unseal(one.seal(b"content")) == b"content"
    except MembridgeError:
        return False


@pytest.mark.parametrize("text", ["", "x", "é", "a" * 3, "AAAA" * 30, "\ud800"])
async def test_what_is_not_sealed_opens_as_nothing(bus: Bus, text: str) -> None:
    [keys] = await agreed(await bucket(bus), 1)
    assert keys.unseal(text) is None
