"""Sessions of browsers: a sealed cookie that no script reads and no other site uses, an end that holds everywhere."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncGenerator
from dataclasses import replace

import msgspec
import pytest

from membridge.aio.deadline import Deadline
from membridge.bus.connection import Bus
from schemas.web import Role, SessionReply
from services.web import sessions
from services.web.auth import Admission, HeaderKey
from services.web.identity import Identity
from services.web.routes import Call
from services.web.sessions import Sessions
from tests.fixtures.toy_web import Answer, ask
from tests.fixtures.web_access import Guarded, guarded

SAME = "Sec-Fetch-Site: same-origin"


@pytest.fixture
async def served(bus: Bus) -> AsyncGenerator[Guarded]:
    """A toy behind keys and sessions."""
    async with guarded(bus) as running:
        yield running


async def log_in(served: Guarded, key: str) -> tuple[list[str], SessionReply]:
    """Return the headers of a browser that is logged in, and what it was told."""
    answer = await ask(served.toy, "POST", "/api/v1/session", body=msgspec.json.encode({"key": key}), headers=[SAME])
    assert answer.status == 200
    cookie = answer.headers["set-cookie"].partition(";")[0]
    told = msgspec.json.decode(answer.body, type=SessionReply)
    return [f"Cookie: {cookie}", SAME], told


def _soon() -> Deadline:
    return Deadline.after(10.0)


async def put(served: Guarded, headers: list[str]) -> Answer:
    return await ask(served.toy, "PUT", "/notes/a", body=b"{}", headers=headers)


async def test_a_browser_logs_in_works_and_logs_out(served: Guarded) -> None:
    headers, told = await log_in(served, await served.key())
    shown = await ask(served.toy, "GET", "/api/v1/session", headers=headers)
    assert msgspec.json.decode(shown.body, type=SessionReply) == told
    assert (await put(served, headers)).status == 200
    ended = await ask(served.toy, "DELETE", "/api/v1/session", headers=headers)
    assert "Max-Age=0" in ended.headers["set-cookie"]
    # Also for whoever copied the cookie.
    assert (await put(served, headers)).error.detail == "the session is over"
    assert [one.action for one in served.toy.audited] == ["login", "put_note", "logout"]


async def test_a_logout_holds_on_every_server(bus: Bus, served: Guarded) -> None:
    headers, _ = await log_in(served, await served.key())
    async with guarded(bus) as other:
        assert (await put(other, headers)).status == 200
        await ask(served.toy, "DELETE", "/api/v1/session", headers=headers)
        await other.sessions.refresh()
        assert (await put(other, headers)).status == 401


async def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(served: Guarded) -> None:
    key = msgspec.json.encode({"key": await served.key()})
    cookie = (await ask(served.toy, "POST", "/api/v1/session", body=key)).headers["set-cookie"]
    assert cookie.startswith("membridge=")
    assert {"Path=/", "HttpOnly", "SameSite=Strict", "Max-Age=43200"} <= set(cookie.split("; "))
    behind = Sessions(served.sessions._sealing, served.keyring, served.sessions._ended.kv, behind_tls=True)
    call = Call("r", _soon(), "203.0.113.7")
    await behind.login(msgspec.json.decode(key, type=sessions.LoginRequest), call)
    assert call.headers[0][1].startswith("__Host-membridge=")
    assert call.headers[0][1].endswith("; Secure")


@pytest.mark.parametrize(
    ("address", "host", "may"),
    [
        ("127.0.0.1", "localhost", True),
        ("127.0.0.1", "127.0.0.1", True),
        ("::1", "::1", True),
        ("203.0.113.7", "localhost", False),
        ("203.0.113.7", "memory.example", False),
        # A proxy on this machine that speaks plain HTTP to the others.
        ("127.0.0.1", "memory.example", False),
    ],
)
async def test_nobody_logs_in_over_a_plain_connection_from_elsewhere(
    served: Guarded, address: str, host: str, may: bool
) -> None:
    request = sessions.LoginRequest(key=await served.key())
    if may:
        await served.sessions.login(request, Call("r", _soon(), address, host))
        return
    with pytest.raises(sessions.ForbiddenError, match="plain connection"):
        await served.sessions.login(request, Call("r", _soon(), address, host))


async def test_what_a_session_changes_must_come_from_a_page_of_this_server(served: Guarded) -> None:
    headers, _ = await log_in(served, await served.key())
    # What names no page is no browser, and a program has a key.
    assert (await put(served, headers[:1])).status == 403
    assert (await put(served, [*headers, "Content-Type: text/plain"])).status == 415
    assert (await ask(served.toy, "GET", "/notes", headers=headers[:1])).status == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        (["Sec-Fetch-Site: cross-site"], 403),
        (["Sec-Fetch-Site: same-site"], 403),
        (["Origin: http://evil.example"], 403),
        (["Origin: null"], 403),
        (["Origin: http://localhost"], 200),
        (["Sec-Fetch-Site: none"], 200),
    ],
)
async def test_a_page_of_another_site_changes_nothing(served: Guarded, headers: list[str], status: int) -> None:
    mine, _ = await log_in(served, await served.key())
    assert (await put(served, [mine[0], *headers])).status == status
    login = msgspec.json.encode({"key": await served.key()})
    assert (await ask(served.toy, "POST", "/api/v1/session", body=login, headers=headers)).status == status


async def test_a_name_that_is_not_ours_is_refused(served: Guarded) -> None:
    key = await served.key()
    for host in ("evil.example", "localhost.evil.example", "", "[::1"):
        answer = await ask(served.toy, "GET", "/notes", key=key, host=host)
        assert answer.status in {400, 421}, host
    for host in ("127.0.0.1:8080", "[::1]:80", "LOCALHOST"):
        assert (await ask(served.toy, "GET", "/notes", key=key, host=host)).status == 200, host


async def test_a_cookie_shows_nothing_and_none_that_was_made_or_changed_elsewhere_counts(served: Guarded) -> None:
    key = await served.key(Role.READER)
    headers, _ = await log_in(served, key)
    value = headers[0].partition("=")[2]
    opened = urlsafe_b64decode(value + "=" * (-len(value) % 4))
    assert key.split("_")[1].encode() not in opened
    assert b"reader" not in opened
    forged = [urlsafe_b64encode(bytes([*opened[:at], opened[at] ^ 1, *opened[at + 1 :]])) for at in (0, 24, 40, -1)]
    for cookie in (*(one.decode().rstrip("=") for one in forged), value[:-1], value[4:], "...", "", "x", "é.é"):
        assert (await ask(served.toy, "GET", "/notes", headers=[f"Cookie: membridge={cookie}"])).status == 401, cookie


async def test_a_session_ends_unused_ends_for_good_and_is_renewed_while_it_is_used(
    served: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers, _ = await log_in(served, await served.key())
    now = sessions._now()
    monkeypatch.setattr(sessions, "_now", lambda: now + sessions.RENEW + 1)
    renewed = await ask(served.toy, "GET", "/notes", headers=headers)
    again = [f"Cookie: {renewed.headers['set-cookie'].partition(';')[0]}"]
    monkeypatch.setattr(sessions, "_now", lambda: now + sessions.IDLE + 2)
    assert (await ask(served.toy, "GET", "/notes", headers=headers)).status == 401
    assert (await ask(served.toy, "GET", "/notes", headers=again)).status == 200
    monkeypatch.setattr(sessions, "IDLE", sessions.LAST * 2)
    monkeypatch.setattr(sessions, "_now", lambda: now + sessions.LAST + 1)
    assert (await ask(served.toy, "GET", "/notes", headers=again)).status == 401


async def test_a_revoked_key_ends_its_sessions(served: Guarded) -> None:
    admin, key = await served.key(), await served.key()
    headers, _ = await log_in(served, key)
    await ask(served.toy, "DELETE", f"/api/v1/keys/{key.split('_')[1]}", key=admin)
    assert (await put(served, headers)).status == 401


async def test_a_session_may_no_more_than_its_key_could_at_login(
    served: Guarded, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers, told = await log_in(served, await served.key(Role.READER))
    monkeypatch.setattr(served.keyring, "holder", lambda _: Identity(told.key_id, "n", Role.ADMIN, frozenset("*")))
    assert (await put(served, headers)).status == 403
    assert (await ask(served.toy, "GET", "/notes", headers=headers)).status == 200


async def test_a_browser_logs_in_with_a_key_of_the_settings_that_may_until_another_is_set(bus: Bus) -> None:
    callers = {name: Identity(name, name, Role.OPERATOR, frozenset({"notes"}), issued=False) for name in ("own", "not")}
    own = HeaderKey.of("X-Own", "o" * 20, callers["own"], logs_in=True)
    keys = (own, HeaderKey.of("X-Not", "n" * 20, callers["not"]))
    async with guarded(bus, admission=Admission(keys=keys)) as one:
        headers, told = await log_in(one, "o" * 20)
        assert (told.key_id, told.role) == ("own", Role.OPERATOR)
        assert (await put(one, headers)).status == 200
        body = msgspec.json.encode({"key": "n" * 20})
        assert (await ask(one.toy, "POST", "/api/v1/session", body=body)).status == 401
        async with guarded(bus, admission=Admission(keys=(replace(own, sha256=b"x" * 32),))) as other:
            assert (await put(other, headers)).error.detail == "the session is over"
        assert (await ask(one.toy, "DELETE", "/api/v1/session", headers=headers)).status == 200
        assert (await put(one, headers)).status == 401


async def test_logging_in_may_be_tried_five_times_a_minute(served: Guarded) -> None:
    wrong = [await ask(served.toy, "POST", "/api/v1/session", body=b'{"key":"mbk_a_b"}') for _ in range(6)]
    assert [one.status for one in wrong] == [401] * 5 + [429]
    assert [one.outcome for one in served.toy.audited] == ["unauthorized"] * 5
