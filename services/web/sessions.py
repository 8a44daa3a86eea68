"""Sessions of browsers: a signed cookie over a key, which is looked up at every request.

The server keeps none: a revoked key ends its sessions, and one that is logged out is remembered until it would have
ended. What a session changes needs the token that only the page's own script can read.
"""

import base64
import hmac
import ipaddress
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256

from membridge.aio.deadline import Deadline
from membridge.aio.lifecycle import Ready
from membridge.bus.kv import Kv
from membridge.errors import CredentialsError, ForbiddenError, RevisionMovedError, UnavailableError
from membridge.system import clock
from schemas.errors import ErrorCode
from schemas.node import Empty
from schemas.web import EndedSession, LoginRequest, Role, SessionReply, SessionSecret
from services.web.identity import Identity
from services.web.keys import Keyring
from services.web.limits import Rate, RateLimit
from services.web.mirror import Mirror
from services.web.routes import Call, Endpoint, Method, Permission, Route

#: Seconds that a session may last, and may be unused.
LAST, IDLE = 43_200, 3_600
#: Seconds after which a used session gets a new cookie.
RENEW = 300
#: Tries of one address to log in.
LOGINS = Rate(per_second=5 / 60, burst=5)
#: Bytes of the secret that cookies are signed with, at least.
SECRET = 32
#: The header that carries the token.
CSRF = "X-CSRF-Token"
#: The one entry of its bucket.
_SHARED = "cookies"
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


@dataclass(frozen=True, slots=True)
class _Cookie:
    """The content of a cookie: session, key, and the seconds since 1970 when it began and was last used."""

    session: str
    key_id: str
    began: int
    used: int


class Sessions:
    """The sessions of a system. `secret` is the same on every server; `behind_tls` when a proxy speaks TLS for it."""

    def __init__(self, secret: bytes, keyring: Keyring, ended: Kv[EndedSession], *, behind_tls: bool = False) -> None:
        self.sign_with(secret)
        self._keyring, self._behind_tls = keyring, behind_tls
        self._ended = Mirror(ended)
        self._logins = RateLimit(LOGINS)

    async def run(self, ready: Ready) -> None:
        """Keep the list of ended sessions current until cancelled."""
        await self._ended.run(ready)

    async def refresh(self) -> None:
        """Read the copy anew now."""
        await self._ended.refresh()

    def sign_with(self, secret: bytes) -> None:
        """Sign cookies with `secret` from now on; sessions under another one are over."""
        if len(secret) < SECRET:
            raise ValueError(f"the secret of sessions has {SECRET} bytes at least")
        self._secret = secret

    def cookie_name(self, *, secure: bool) -> str:
        """Return the name of the cookie; the prefix keeps it from every other host and from plain connections."""
        return "__Host-membridge" if secure or self._behind_tls else "membridge"

    def identify(self, text: str, call: Call) -> Identity:
        """Return the caller with the session of a cookie, and renew it now and then. Raises CredentialsError."""
        cookie, now = self._read(text), _now()
        if cookie is None or now - cookie.began > LAST or now - cookie.used > IDLE:
            raise _OVER
        if cookie.session in self._ended.entries():
            raise _OVER
        holder = self._keyring.holder(cookie.key_id)
        identity = replace(holder, session=cookie.session, until=cookie.began + LAST)
        if now - cookie.used > RENEW:
            self._set(call, _Cookie(cookie.session, cookie.key_id, cookie.began, now))
        return identity

    def listen(self, changed: Callable[[], None]) -> None:
        """Have `changed` called whenever a session was logged out."""
        self._ended.listen(changed)

    def check(self, identity: Identity) -> None:
        """Raise CredentialsError when the caller's session is over."""
        if identity.session and (identity.session in self._ended.entries() or _now() > identity.until):
            raise _OVER

    def csrf_token(self, session: str) -> str:
        """Return the token of a session."""
        return self._sign("csrf", session)

    def check_csrf(self, session: str, token: str) -> None:
        """Raise ForbiddenError unless `token` is the session's."""
        if not hmac.compare_digest(self.csrf_token(session).encode(), token.encode("utf-8", "surrogatepass")):
            raise ForbiddenError(
                f"the request lacks the token of its session: header {CSRF}", remedy="GET /api/v1/session shows it"
            )

    async def login(self, request: LoginRequest, call: Call) -> SessionReply:
        """Open a session. Raises CredentialsError, ForbiddenError on a plain connection from elsewhere."""
        self._logins.take(call.address)
        if not (call.secure or self._behind_tls or _is_loopback(call.address)):
            raise ForbiddenError(
                "a browser may not log in over a plain connection: the cookie could be read on the way",
                remedy="use https, or http://127.0.0.1 on the machine itself",
            )
        call.wrong_key = True
        holder = self._keyring.identify(request.key)
        call.wrong_key = False
        now, session = _now(), secrets.token_hex(16)
        call.identity = replace(holder, session=session, until=now + LAST)
        self._set(call, _Cookie(session, holder.key_id, now, now))
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
            csrf_token=self.csrf_token(identity.session) if identity.session else "",
        )

    def _set(self, call: Call, cookie: _Cookie) -> None:
        said = f"{cookie.session}.{cookie.key_id}.{cookie.began}.{cookie.used}"
        self._header(call, f"{said}.{self._sign('session', said)}", cookie.began + LAST - cookie.used)

    def _header(self, call: Call, value: str, seconds: int) -> None:
        secure = call.secure or self._behind_tls
        flags = "; Secure" if secure else ""
        cookie = (
            f"{self.cookie_name(secure=secure)}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{flags}"
        )
        call.headers = [one for one in call.headers if one[0] != "Set-Cookie"] + [("Set-Cookie", cookie)]

    def _read(self, text: str) -> _Cookie | None:
        said, _, signature = text.rpartition(".")
        expected = self._sign("session", said)
        if not hmac.compare_digest(expected.encode(), signature.encode("utf-8", "surrogatepass")):
            return None
        session, key_id, began, used = said.split(".")
        return _Cookie(session, key_id, int(began), int(used))

    def _sign(self, purpose: str, text: str) -> str:
        signed = hmac.digest(self._secret, f"{purpose}:{text}".encode("utf-8", "surrogatepass"), sha256)
        return base64.urlsafe_b64encode(signed).decode().rstrip("=")


async def shared_secret(kv: Kv[SessionSecret], *, deadline: Deadline) -> bytes:
    """Return the secret that signs cookies; the first server makes it. Errors: those of the bus."""
    kept = await kv.get(_SHARED, deadline=deadline)
    if kept is None:
        made = SessionSecret(secret=secrets.token_urlsafe(SECRET))
        try:
            await kv.create(_SHARED, made, deadline=deadline)
        except RevisionMovedError:
            # Another server was first.
            kept = await kv.get(_SHARED, deadline=deadline)
        else:
            return made.secret.encode()
    if kept is None:
        raise UnavailableError("the secret of sessions cannot be read at present", remedy="try again")
    return kept.value.secret.encode()


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
