"""A sample of lost answers on every run, always the same; `just sweep --fault answer` takes all. docs/faults.md."""

import asyncio
import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from membridge.aio.deadline import Deadline
from membridge.bus import connection, jetstream
from membridge.bus.connection import connect
from membridge.bus.options import BusOptions
from membridge.embedded.nats_server import NatsServer
from membridge.errors import MembridgeError
from membridge.objectstore.encryption.keys import KeySource, new_key, write_file
from membridge.objectstore.encryption.rotate import reencrypt
from membridge.objectstore.encryption.store import EncryptedStore
from membridge.objectstore.jetstream import open_jetstream
from membridge.objectstore.protocol import ObjectStore
from membridge.objectstore.s3.client import S3Options, open_s3
from tests.bench.s3 import S3
from tests.faults import answers
from tests.faults.scenarios import BY_NAME
from tests.faults.shim import Mode
from tests.faults.sweep import sample_of, sweep
from tests.faults.world import Place
from tests.fixtures.relay import Losses, relayed

SEED = 8
#: Writes of a push that are tried: one of them makes the commit record an object.
WRITES = 2


def soon() -> Deadline:
    return Deadline.after(30.0)


async def test_a_push_ends_stored_or_not_stored_and_the_next_one_works(
    nats_server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "ANSWER", 1.0)
    plan = {Mode.ANSWER: partial(sample_of, mode=Mode.ANSWER, count=WRITES, seed=SEED)}
    [report] = await sweep(Place(nats_server.url), tmp_path, None, BY_NAME["delta push"], plan)
    assert report.failures == []
    assert report.hit == report.tries >= WRITES


@pytest.mark.parametrize("kind", ["jetstream", "s3"])
@pytest.mark.parametrize("act", ["seal", "rotate"])
async def test_encrypting_a_store_anew_goes_on_wherever_an_answer_was_lost(
    act: str, kind: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of its writes, all at once, each in a bucket of its own."""
    monkeypatch.setattr(connection, "ANSWER", 1.5)
    monkeypatch.setattr(jetstream, "ANSWER", 1.5)
    content = {"p/1": b"one", "p/2": b"two" * 100_000}

    async def attempt(number: int) -> list[str]:
        losses, work = Losses(), tmp_path / str(number)
        work.mkdir()
        file = work / "key"
        old, new = new_key(), new_key()
        async with lossy_store(kind, request, losses) as inner:
            write_file(file, [old])
            before = inner if act == "seal" else EncryptedStore(inner, KeySource(file=file))
            for key, body in content.items():
                await before.put(key, body, deadline=soon())
            write_file(file, [new, old])
            losses.arm(number)
            done = False
            while not done:
                store = EncryptedStore(inner, KeySource(file=file), accept_plain=True)
                try:
                    await reencrypt(store, "p/", work, deadline=soon, progress=lambda _done, _total: None)
                    await store.mark(deadline=soon())
                    done = True
                except MembridgeError:
                    # It is run again, as its operator would.
                    assert losses.lost.is_set()
            losses.disarm()
            assert losses.lost.is_set() == (number > 0)
            write_file(file, [new])
            strict = EncryptedStore(inner, KeySource(file=file))
            assert {key: await strict.get(key, deadline=soon()) for key in content} == content
        return losses.writes

    writes = await attempt(0)
    assert len(writes) > len(content)
    async with asyncio.TaskGroup() as group:
        for number in range(1, len(writes) + 1):
            group.create_task(attempt(number))


@asynccontextmanager
async def lossy_store(kind: str, request: pytest.FixtureRequest, losses: Losses) -> AsyncGenerator[ObjectStore]:
    """Open an empty store whose answers `losses` takes."""
    if kind == "s3":
        seaweed = request.getfixturevalue("seaweed")
        assert isinstance(seaweed, S3)
        async with relayed(seaweed.endpoint, losses) as endpoint:
            bucket = seaweed.make_bucket(f"lossy-{secrets.token_hex(6)}")
            options = S3Options(endpoint, seaweed.access_key, seaweed.secret_key, bucket)
            async with open_s3(options) as store:
                yield store
        return
    server = request.getfixturevalue("nats_server")
    assert isinstance(server, NatsServer)
    async with (
        relayed(server.url, losses) as url,
        connect(BusOptions(urls=(url,), name="lossy"), deadline=soon()) as bus,
        open_jetstream(bus, bucket=f"lossy-{secrets.token_hex(6)}") as store,
    ):
        yield store
