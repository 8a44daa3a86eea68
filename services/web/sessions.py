"""Sessions of browsers: a sealed cookie over a key, which is looked up at every request.

The server keeps none: a revoked key ends its sessions, and one that is logged out is remembered until it would have
ended. No page of another site can use a session: see `auth`.
"""

import ipaddress
import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace

import msgspec

from membridge.aio.lifecycle import Ready
from membridge.bus.kv import Kv
from membridge.errors import CredentialsError, ForbiddenError
from membridge.system import clock
from schemas.errors import ErrorCode
from schemas.node import Empty
from schemas.web import EndedSession, LoginRequest, Role, SessionReply
from services.web.identity import Identity
from services.web.keys import HeaderKey, Keyring
from services.web.limits import Rate, RateLimit
from services.web.mirror import Mirror
from services.web.routes import Call, Endpoint, Method, Permission, Route
from services.web.sealing import SealingKeys

#: Seconds that a session may last, and may be unused.
LAST, IDLE = 43_200, 3_600
#: Seconds after which a used session gets a new cookie.
RENEW = 300
#: Tries of one address to log in.
LOGINS = Rate(per_second=5 / 60, burst=5)
_ANY_KEY = Permission("", Role.READER)
_OVER = CredentialsError("the session is over", remedy="log in again")

LOGIN = Route(
    "login",
    Method.POST,
    "/api/v1/session",
    LoginRequest,
    SessionReply,
    "Open a session: the answer sets its cookie.",
    None,
    most_bytes=1_024,
    errors=(ErrorCode.UNAUTHORIZED, ErrorCode.FORBIDDEN),
)
WHOAMI = Route("session", Method.GET, "/api/v1/session", Empty, SessionReply, "Who asks.", _ANY_KEY)
LOGOUT = Route("logout", Method.DELETE, "/api/v1/session", Empty, Empty, "End the session.", _ANY_KEY)


class _Cookie(msgspec.Struct, frozen=True, array_like=True):
    """What a cookie holds; times in seconds since 1970."""

    session: str
    key_id: str
    #: The role at login: a session never has a higher one.
    role: Role
    #: When the session ends whatever happens, and when it was last used.
    ends: int
    used: int
    #: Of a key from the settings: part of its sha256. Another key there ends the session.
    mark: str = ""


class Sessions:
    """The sessions of a system. `behind_tls` when a proxy speaks TLS for this server.

    A browser logs in with an issued key, or with one of the `given` keys of the settings that may do that.
    """

    def __init__(
        self,
        sealing: SealingKeys,
        keyring: Keyring,
        ended: Kv[EndedSession],
        *,
        behind_tls: bool = False,
        given: Sequence[HeaderKey] = (),
    ) -> None:
        self._sealing, self._keyring, self._behind_tls = sealing, keyring, behind_tls
        self._given = {key.identity.key_id: key for key in given if key.logs_in}
        self._ended = Mirror(ended)
        self._logins = RateLimit(LOGINS)

    async def run(self, ready: Ready) -> None:
        """Keep the list of ended sessions current until cancelled."""
        await self._ended.run(ready)

    async def refresh(self) -> None:
        """Read the copy anew now."""
        await self._ended.refresh()

    def cookie_name(self, *, secure: bool) -> str:
        """Return the name of the cookie; the prefix keeps it from every other host and from plain connections."""
        return "__Host-membridge" if secure or self._behind_tls else "membridge"

    def identify(self, text: str, call: Call) -> Identity:
        """Return the caller with the session of a cookie, and renew it now and then. Raises CredentialsError."""
        cookie, now = self._read(text), _now()
        if cookie is None or now > cookie.ends or now - cookie.used > IDLE:
            raise _OVER
        if cookie.session in self._ended.entries():
            raise _OVER
        holder = self._holder(cookie).at_most(cookie.role)
        if now - cookie.used > RENEW:
            self._set(call, msgspec.structs.replace(cookie, used=now))
        return replace(holder, session=cookie.session, until=cookie.ends)

    def listen(self, changed: Callable[[], None]) -> None:
        """Have `changed` called whenever a session was logged out."""
        self._ended.listen(changed)

    def check(self, identity: Identity) -> None:
        """Raise CredentialsError when the caller's session is over."""
        if identity.session and (identity.session in self._ended.entries() or _now() > identity.until):
            raise _OVER

    async def login(self, request: LoginRequest, call: Call) -> SessionReply:
        """Open a session. Raises CredentialsError, ForbiddenError on a plain connection from elsewhere."""
        self._logins.take(call.address)
        # A plain proxy on this machine shows the name by which others reach it.
        local = _is_loopback(call.address) and (call.host == "localhost" or _is_loopback(call.host))
        if not (call.secure or self._behind_tls or local):
            raise ForbiddenError(
                "a browser may not log in over a plain connection: the cookie could be read on the way",
                remedy="use https, or http://127.0.0.1 on the machine itself",
            )
        call.wrong_key = True
        holder, mark = self._identify(request.key)
        call.wrong_key = False
        now, session = _now(), secrets.token_hex(16)
        call.identity = replace(holder, session=session, until=now + LAST)
        self._set(call, _Cookie(session, holder.key_id, holder.role, now + LAST, now, mark))
        return self.shown(call.identity)

    async def logout(self, call: Call) -> None:
        """End the session of a call, wherever its cookie is."""
        if call.identity.session:
            record = EndedSession(key_id=call.identity.key_id, at=clock.stamp())
            await self._ended.kv.put(call.identity.session, record, deadline=call.deadline)
            await self._ended.refresh()
        self._header(call, "", 0)

    def shown(self, identity: Identity) -> SessionReply:
        """Return what a caller may see of itself."""
        return SessionReply(
            key_id=identity.key_id,
            name=identity.name,
            role=identity.role,
            scopes=sorted(identity.scopes),
            ends_at=clock.stamp(float(identity.until)) if identity.session else None,
        )

    def _identify(self, text: str) -> tuple[Identity, str]:
        """Return the caller of a key, and the mark of one from the settings. Raises CredentialsError."""
        # All are compared, so that the time shows nothing.
        right = [key for key in self._given.values() if key.is_same(text)]
        return (right[0].identity, right[0].mark) if right else (self._keyring.identify(text), "")

    def _holder(self, cookie: _Cookie) -> Identity:
        """Return the caller with the rights of its key now. Raises CredentialsError."""
        if not cookie.mark:
            return self._keyring.holder(cookie.key_id)
        given = self._given.get(cookie.key_id)
        if given is None or given.mark != cookie.mark:
            raise _OVER
        return given.identity

    def _set(self, call: Call, cookie: _Cookie) -> None:
        self._header(call, self._sealing.seal(msgspec.json.encode(cookie)), cookie.ends - cookie.used)

    def _header(self, call: Call, value: str, seconds: int) -> None:
        secure = call.secure or self._behind_tls
        flags = "; Secure" if secure else ""
        cookie = (
            f"{self.cookie_name(secure=secure)}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{flags}"
        )
        call.headers = [one for one in call.headers if one[0] != "Set-Cookie"] + [("Set-Cookie", cookie)]

    def _read(self, text: str) -> _Cookie | None:
        content = self._sealing.unseal(text)
        try:
            return None if content is None else msgspec.json.decode(content, type=_Cookie)
        except msgspec.MsgspecError:
            # Sealed by another version.
            return None


def endpoints(sessions: Sessions) -> list[Endpoint]:
    """Return the routes by which a browser logs in and out, and a caller sees who it is."""

    async def whoami(_: Empty, call: Call) -> SessionReply:
        return sessions.shown(call.identity)

    async def logout(_: Empty, call: Call) -> Empty:
        await sessions.logout(call)
        return Empty()

    return [LOGIN.bind(sessions.login), WHOAMI.bind(whoami), LOGOUT.bind(logout)]


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _now() -> int:
    return int(clock.now().timestamp())
