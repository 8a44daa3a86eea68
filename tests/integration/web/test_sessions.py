"""Sessions of browsers: a cookie that no script reads, a token that no other site has, an end that holds everywhere."""

from collections.abc import AsyncGenerator

import msgspec
import pytest

from membridge.aio.deadline import Deadline
from membridge.bus.connection import Bus
from schemas.web import Role, SessionReply
from services.web import sessions
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
    return [f"Cookie: {cookie}", SAME, f"X-CSRF-Token: {told.csrf_token}"], told


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
    behind = Sessions(b"s" * sessions.SECRET, served.keyring, served.sessions._ended.kv, behind_tls=True)
    call = Call("r", _soon(), "203.0.113.7")
    await behind.login(msgspec.json.decode(key, type=sessions.LoginRequest), call)
    assert call.headers[0][1].startswith("__Host-membridge=")
    assert call.headers[0][1].endswith("; Secure")


async def test_nobody_logs_in_over_a_plain_connection_from_elsewhere(served: Guarded) -> None:
    call = Call("r", _soon(), "203.0.113.7")
    with pytest.raises(sessions.ForbiddenError, match="plain connection"):
        await served.sessions.login(sessions.LoginRequest(key=await served.key()), call)


async def test_what_a_session_changes_needs_its_token(served: Guarded) -> None:
    key = await served.key()
    headers, _ = await log_in(served, key)
    _, other = await log_in(served, key)
    assert (await put(served, headers[:2])).error.detail.startswith("the request lacks the token")
    assert (await put(served, [*headers[:2], "X-CSRF-Token: é"])).status == 403
    assert (await put(served, [*headers[:2], f"X-CSRF-Token: {other.csrf_token}"])).status == 403
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
        ([], 200),
    ],
)
async def test_a_page_of_another_site_changes_nothing(served: Guarded, headers: list[str], status: int) -> None:
    mine, _ = await log_in(served, await served.key())
    assert (await put(served, [mine[0], mine[2], *headers])).status == status
    login = msgspec.json.encode({"key": await served.key()})
    assert (await ask(served.toy, "POST", "/api/v1/session", body=login, headers=headers)).status == status


async def test_a_name_that_is_not_ours_is_refused(served: Guarded) -> None:
    key = await served.key()
    for host in ("evil.example", "localhost.evil.example", "", "[::1"):
        answer = await ask(served.toy, "GET", "/notes", key=key, host=host)
        assert answer.status in {400, 421}, host
    for host in ("127.0.0.1:8080", "[::1]:80", "LOCALHOST"):
        assert (await ask(served.toy, "GET", "/notes", key=key, host=host)).status == 200, host


async def test_a_cookie_that_was_made_or_changed_elsewhere_is_none(served: Guarded) -> None:
    headers, _ = await log_in(served, await served.key(Role.READER))
    value = headers[0].partition("=")[2]
    session, key_id, began, used, signature = value.split(".")
    forged = Sessions(b"x" * 32, served.keyring, served.sessions._ended.kv)._sign("session", value.rpartition(".")[0])
    for cookie in (
        f"{session}.{key_id}.{began}.{int(used) + 1}.{signature}",
        f"{session}.{key_id}.{began}.{used}.{forged}",
        value[:-1], "...", "", "x", "é.é",
    ):  # fmt: skip
        assert (await ask(served.toy, "GET", "/notes", headers=[f"Cookie: membridge={cookie}"])).status == 401


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


async def test_logging_in_may_be_tried_five_times_a_minute(served: Guarded) -> None:
    wrong = [await ask(served.toy, "POST", "/api/v1/session", body=b'{"key":"mbk_a_b"}') for _ in range(6)]
    assert [one.status for one in wrong] == [401] * 5 + [429]
    assert [one.outcome for one in served.toy.audited] == ["unauthorized"] * 5
