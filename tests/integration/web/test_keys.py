"""API keys: hashed, compared in constant time, bound to roles and scopes, revoked within a second, audited."""

import hmac
import time
from hashlib import sha256

import msgspec
import pytest

from membridge.aio.deadline import Deadline
from membridge.aio.tasks import background
from membridge.bus.connection import Bus
from membridge.bus.kv import Kv
from membridge.bus.streams import ensure_streams, last_per_subject
from membridge.errors import UnavailableError
from membridge.wiring import api_keys
from schemas import buckets, streams
from schemas.errors import ErrorCode
from schemas.web import AuditEntry, IssuedKey, KeyInfo, KeysReply, KeyUse, Role
from services.web import key_uses, keys
from services.web.audit import stream_audit
from services.web.auth import RATES, Rates
from services.web.limits import Rate
from tests.fixtures.pace import pause
from tests.fixtures.toy_web import ask
from tests.fixtures.web_access import guarded


async def test_a_key_is_stored_as_its_hash_and_shown_once(bus: Bus) -> None:
    async with guarded(bus) as served:
        admin = await served.key()
        body = b'{"name":"ci","role":"reader","scopes":["notes"],"days":7}'
        answer = await ask(served.toy, "POST", "/api/v1/keys", body=body, key=admin)
        issued = msgspec.json.decode(answer.body, type=IssuedKey)
        assert answer.status == 201
        secret = issued.secret.removeprefix(f"mbk_{issued.key.id}_")
        entry = await served.kv.get(issued.key.id, deadline=Deadline.after(5.0))
        assert entry is not None
        assert entry.value.sha256 == sha256(secret.encode()).hexdigest()
        assert b"sha256" not in answer.body
        listed = await ask(served.toy, "GET", "/api/v1/keys", key=admin)
        assert secret.encode() not in listed.body
        assert b"sha256" not in listed.body
        assert issued.key in msgspec.json.decode(listed.body, type=KeysReply).keys
        assert (await ask(served.toy, "GET", "/notes", key=issued.secret)).status == 200
        assert (await ask(served.toy, "GET", "/notes", headers=[f"X-Api-Key: {issued.secret}"])).status == 200


async def test_every_key_that_is_shown_is_compared_in_constant_time(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[tuple[str, str]] = []

    def spying(one: str, other: str) -> bool:
        compared.append((one, other))
        return hmac.compare_digest(one, other)

    async with guarded(bus) as served:
        key = await served.key()
        monkeypatch.setattr(keys, "compare_digest", spying)
        for shown in (key, key[:-1] + "!", "mbk_nobodynobody_x", "", "mbk", "é", "x" * 5_000):
            compared.clear()
            answer = await ask(served.toy, "GET", "/notes", headers=[f"Authorization: Bearer {shown}"])
            assert answer.status == (200 if shown == key else 401)
            # One comparison of two hashes of one length, whether or not there is such a key.
            assert [(len(one), len(other)) for one, other in compared] == ([(64, 64)] if shown else [])


async def test_a_key_may_do_what_its_role_and_its_scopes_allow(bus: Bus) -> None:
    async with guarded(bus) as served:
        reader, other = await served.key(Role.READER, "notes"), await served.key(Role.ADMIN, "tasks")
        put = {"body": b'{"text":"t"}'}
        assert (await ask(served.toy, "GET", "/notes", key=reader)).status == 200
        assert (await ask(served.toy, "PUT", "/notes/a", key=reader, **put)).error.error is ErrorCode.FORBIDDEN
        assert (await ask(served.toy, "GET", "/notes", key=other)).error.detail.endswith("it needs reader of notes")
        anonymous = await ask(served.toy, "GET", "/notes")
        assert (anonymous.status, anonymous.headers["www-authenticate"]) == (401, 'Bearer realm="membridge"')


async def test_nobody_gives_away_more_than_they_have(bus: Bus) -> None:
    async with guarded(bus) as served:
        admin = await served.key(Role.ADMIN, "keys", "notes")
        for scopes, status in ((["notes"], 201), (["keys", "notes"], 201), (["tasks"], 403), (["*"], 403)):
            body = msgspec.json.encode({"name": "n", "role": "admin", "scopes": scopes})
            assert (await ask(served.toy, "POST", "/api/v1/keys", body=body, key=admin)).status == status


async def test_a_revoked_key_is_refused_within_a_second_by_every_server(bus: Bus) -> None:
    async with guarded(bus) as one, guarded(bus) as other:
        admin, victim = await one.key(), await one.key(Role.READER)
        await other.keyring.refresh()
        assert (await ask(other.toy, "GET", "/notes", key=victim)).status == 200
        key_id = victim.split("_")[1]
        answer = await ask(one.toy, "DELETE", f"/api/v1/keys/{key_id}", key=admin)
        revoked_at = time.monotonic()
        assert msgspec.json.decode(answer.body, type=KeyInfo).revoked_at is not None
        assert b"sha256" not in answer.body
        assert (await ask(one.toy, "GET", "/notes", key=victim)).status == 401
        while (await ask(other.toy, "GET", "/notes", key=victim)).status == 200:
            await pause()
        assert time.monotonic() - revoked_at < 1.0
        again = await ask(one.toy, "DELETE", f"/api/v1/keys/{key_id}", key=admin)
        assert (again.status, again.body) == (200, answer.body)
        assert (await ask(one.toy, "DELETE", "/api/v1/keys/aaaaaaaaaaaa", key=admin)).status == 404


async def test_an_expired_key_is_refused(bus: Bus) -> None:
    async with guarded(bus) as served:
        key = await served.key(Role.READER, days=1)
        entry = await served.kv.get(key.split("_")[1], deadline=Deadline.after(5.0))
        assert entry is not None
        over = msgspec.structs.replace(entry.value, expires_at="2020-01-01T00:00:00+00:00")
        await served.kv.put(entry.key, over, deadline=Deadline.after(5.0))
        await served.keyring.refresh()
        assert (await ask(served.toy, "GET", "/notes", key=key)).status == 401


async def test_wrong_keys_slow_their_address_down_and_the_right_one_waits_too(bus: Bus) -> None:
    rates = Rates(read=RATES.read, write=RATES.write, refused=Rate(per_second=0.01, burst=3))
    async with guarded(bus, rates=rates) as served:
        key = await served.key()
        statuses = [(await ask(served.toy, "GET", "/notes", key="mbk_a_b")).status for _ in range(4)]
        assert statuses == [401, 401, 401, 429]
        refused = await ask(served.toy, "GET", "/notes", key=key)
        assert (refused.status, int(refused.headers["retry-after"])) == (429, pytest.approx(100, abs=5))
        assert len([one for one in served.toy.audited if one.outcome == "unauthorized"]) == 3


async def test_each_key_has_its_own_rate(bus: Bus) -> None:
    rates = Rates(read=Rate(per_second=0.01, burst=3), write=RATES.write, refused=RATES.refused)
    async with guarded(bus, rates=rates) as served:
        one, other = await served.key(), await served.key()
        assert [(await ask(served.toy, "GET", "/notes", key=one)).status for _ in range(4)] == [200, 200, 200, 429]
        assert (await ask(served.toy, "GET", "/notes", key=other)).status == 200
        assert (await ask(served.toy, "PUT", "/notes/a", body=b"{}", key=one)).status == 200


async def test_what_is_changed_and_who_was_denied_is_audited_and_kept(bus: Bus) -> None:
    await ensure_streams(bus, streams.WEB, replicas=1, deadline=Deadline.after(10.0))
    async with guarded(bus) as served:
        reader, admin = await served.key(Role.READER, "notes"), await served.key()
        await ask(served.toy, "GET", "/notes", key=reader)
        await ask(served.toy, "GET", "/notes")
        await ask(served.toy, "PUT", "/notes/a", body=b"{}", key=reader)
        await ask(served.toy, "PUT", "/notes/a", body=b"{}", key=admin, headers=["X-Request-Id: r-1"])
        told = [(one.action, one.path, one.outcome) for one in served.toy.audited]
        assert told == [("put_note", "/notes/a", "forbidden"), ("put_note", "/notes/a", "ok")]
        entry = served.toy.audited[1]
        assert (entry.by, entry.request_id) == (f"key:{admin.split('_')[1]}", "r-1")
        async with background() as group:
            await stream_audit(bus, group)(entry)
        kept = await last_per_subject(
            bus, streams.WEB_AUDIT, streams.WEB_AUDIT.subjects[0], limit=9, deadline=Deadline.after(5.0)
        )
        assert [msgspec.json.decode(one.body, type=AuditEntry) for one in kept] == [entry]


async def test_the_list_says_when_each_key_was_last_used(bus: Bus) -> None:
    async with guarded(bus) as served:
        admin, other, never = await served.key(), await served.key(Role.READER), await served.key(Role.READER)
        assert (await ask(served.toy, "GET", "/api/v1/session", key=other)).status == 200
        assert (await ask(served.toy, "GET", "/api/v1/session", key=f"{never}x")).status == 401
        listed = await ask(served.toy, "GET", "/api/v1/keys", key=admin)
        used = {one.id: one.last_used_at for one in msgspec.json.decode(listed.body, type=KeysReply).keys}
        assert used[never.split("_")[1]] is None
        began = used[other.split("_")[1]]
        assert began is not None
        # It is kept for the other servers, and for the command line.
        uses = Kv(bus, buckets.API_KEY_USES)
        for key in (admin, other):
            while await uses.get(key.split("_")[1], deadline=Deadline.after(5.0)) is None:
                await pause()
        assert await api_keys.last_uses(uses, deadline=Deadline.after(5.0)) == {
            key_id: at for key_id, at in used.items() if at is not None
        }


async def test_uses_of_keys_that_cannot_be_kept_are_kept_later(bus: Bus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_uses, "FIRST_PAUSE", 0.01)
    uses, tries = Kv(bus, buckets.API_KEY_USES), list[str]()
    async with guarded(bus) as served:
        put = Kv.put

        async def fails_first(self: Kv[KeyUse], key: str, value: KeyUse, *, deadline: Deadline) -> int:
            tries.append(key)
            if len(tries) < 3:
                raise UnavailableError("NATS does not answer")
            return await put(self, key, value, deadline=deadline)

        monkeypatch.setattr(Kv, "put", fails_first)
        key = await served.key()
        # The request does not wait for it.
        assert (await ask(served.toy, "GET", "/api/v1/session", key=key)).status == 200
        key_id = key.split("_")[1]
        while await uses.get(key_id, deadline=Deadline.after(5.0)) is None:
            await pause()
        assert tries == [key_id] * 3
