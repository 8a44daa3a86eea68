"""A new key whose answer from NATS is lost: its caller gets it, or learns which one may be there."""

import msgspec
import pytest

from membridge.aio.deadline import Deadline
from membridge.bus import connection
from membridge.bus.connection import connect
from membridge.bus.kv import Kv
from membridge.bus.options import BusOptions
from membridge.embedded.nats_server import NatsServer
from membridge.errors import BusUnavailableError
from schemas.errors import ErrorCode
from schemas.web import IssuedKey
from tests.fixtures.relay import Losses, relayed
from tests.fixtures.toy_web import ask
from tests.fixtures.web_access import Guarded, guarded

BODY = b'{"name":"ci","role":"reader","scopes":["notes"]}'


async def live(served: Guarded) -> set[str]:
    """Return the ids of the keys named `ci` that can be used."""
    kept = await served.kv.entries(deadline=Deadline.after(5.0))
    return {entry.value.id for entry in kept.values() if entry.value.name == "ci" and entry.value.revoked_at is None}


async def test_a_key_whose_answer_was_lost_is_looked_up_and_given_once(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "ANSWER", 1.0)
    losses = Losses()
    async with (
        relayed(nats_server.url, losses) as url,
        connect(BusOptions(urls=(url,), name="lossy"), deadline=Deadline.after(10.0)) as bus,
        guarded(bus) as served,
    ):
        admin = await served.key()
        losses.arm(1, r"^\$KV\.api_keys\.")
        answer = await ask(served.toy, "POST", "/api/v1/keys", body=BODY, key=admin)
        assert losses.lost.is_set()
        losses.disarm()
        assert answer.status == 201
        issued = msgspec.json.decode(answer.body, type=IssuedKey)
        assert await live(served) == {issued.key.id}
        assert (await ask(served.toy, "GET", "/notes", key=issued.secret)).status == 200


async def test_a_key_that_cannot_be_looked_up_is_named_so_that_only_one_is_live(
    nats_server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "ANSWER", 1.0)
    losses = Losses()

    async def away(*_: object, **__: object) -> None:
        raise BusUnavailableError("the connection to NATS is down")

    async with (
        relayed(nats_server.url, losses) as url,
        connect(BusOptions(urls=(url,), name="lossy"), deadline=Deadline.after(10.0)) as bus,
        guarded(bus) as served,
    ):
        admin = await served.key()
        losses.arm(1, r"^\$KV\.api_keys\.")
        with monkeypatch.context() as patched:
            patched.setattr(Kv, "get", away)
            answer = await ask(served.toy, "POST", "/api/v1/keys", body=BODY, key=admin)
        losses.disarm()
        [lost] = await live(served)
        assert (answer.status, answer.error.error) == (504, ErrorCode.DEADLINE_EXCEEDED)
        assert f"DELETE /api/v1/keys/{lost}" in answer.error.remedy
        # What the remedy says, and then again.
        assert (await ask(served.toy, "DELETE", f"/api/v1/keys/{lost}", key=admin)).status == 200
        again = await ask(served.toy, "POST", "/api/v1/keys", body=BODY, key=admin)
        assert await live(served) == {msgspec.json.decode(again.body, type=IssuedKey).key.id}
