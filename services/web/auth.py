"""Identify the caller and check its rights: host, key or session, origin, rate and permission, in this order.

A key counts wherever it comes from. A session, or a request without a key where none is needed, counts only from the
pages of this server: any web page can have a browser send requests to this machine. An address that shows wrong keys is
slowed down before the next one is compared.
"""

from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import hdrs, web

from membridge.errors import CredentialsError, ForbiddenError
from services.web.identity import ANYBODY, Identity
from services.web.keys import HeaderKey, Keyring
from services.web.limits import Rate, RateLimit
from services.web.origins import Origins
from services.web.routes import AnyRoute, Call, Endpoint, Kind
from services.web.sessions import LOGIN, Sessions

_NO_KEY = "send a key in the header `Authorization: Bearer KEY`, or log in"


@dataclass(frozen=True, slots=True)
class Rates:
    """Rates of one caller's requests, by key, or by address without one; and of its wrong keys, by address."""

    read: Rate
    write: Rate
    refused: Rate


#: Wrong keys of one address.
REFUSED = Rate(per_second=0.2, burst=10)
#: A rate that nothing reaches.
_ANY = Rate(per_second=1e9, burst=1_000_000_000)


def rates_of(reads: int, writes: int) -> Rates:
    """Return the rates for so many requests a second, 0 for any number.

    At once it may be eight times the reads, for a page that opens in eight tabs, and five times the writes.
    """
    return Rates(
        read=Rate(per_second=reads, burst=8 * reads) if reads else _ANY,
        write=Rate(per_second=writes, burst=5 * writes) if writes else _ANY,
        refused=REFUSED,
    )


#: What a service has that sets none.
RATES = rates_of(50, 20)


def nobody(_: AnyRoute, __: str) -> Identity:
    """Admit no caller without a key."""
    return ANYBODY


@dataclass(frozen=True, slots=True)
class Admission:
    """Which callers a service admits beside those with an issued key or a session.

    `without_key` returns the identity of a caller without a key, for a route and the caller's address.
    """

    keys: tuple[HeaderKey, ...] = ()
    without_key: Callable[[AnyRoute, str], Identity] = nobody
    remedy: str = _NO_KEY


#: Only callers with an issued key.
ISSUED_ONLY = Admission()


class Gate:
    """The guard of an application. `used` is called with the id of each issued key."""

    def __init__(
        self,
        keyring: Keyring,
        sessions: Sessions,
        *,
        origins: Origins | None = None,
        rates: Rates = RATES,
        admission: Admission = ISSUED_ONLY,
        used: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._keyring, self._sessions, self._origins = keyring, sessions, origins or Origins()
        self._admission, self._used = admission, used
        self._reads, self._writes = RateLimit(rates.read), RateLimit(rates.write)
        self._refused = RateLimit(rates.refused)

    async def __call__(self, request: web.Request, endpoint: Endpoint, call: Call) -> None:
        """Set `call.identity`, or raise the refusal."""
        route = endpoint.route
        call.host = self._origins.check_host(request)
        if route.permission is not None:
            call.identity = self._identify(request, route, call)
        elif route.writes:
            self._origins.check_page(request, own=route is LOGIN)
        limit = self._writes if route.writes else self._reads
        limit.take(call.identity.key_id or call.address)
        if route.permission is None:
            return
        if call.identity.issued and call.identity.key_id:
            self._used(call.identity.key_id)
        if call.identity is ANYBODY:
            raise CredentialsError("this needs a key", remedy=self._admission.remedy)
        if not call.identity.may(route.permission.scope, route.permission.role):
            wanted = f"{route.permission.role} of {route.permission.scope}"
            raise ForbiddenError(
                f"key {call.identity.name} may not do this: it needs {wanted}",
                remedy="ask an administrator for a key with that role and scope",
            )

    def recheck(self, identity: Identity) -> None:
        """Raise CredentialsError if an earlier caller would be refused now; UnavailableError while that is unknown."""
        if identity.key_id and identity.issued:
            self._keyring.holder(identity.key_id)
        self._sessions.check(identity)

    def listen(self, changed: Callable[[], None]) -> None:
        """Have `changed` called whenever an earlier caller might be refused now."""
        self._keyring.listen(changed)
        self._sessions.listen(changed)

    def _identify(self, request: web.Request, route: AnyRoute, call: Call) -> Identity:
        if (key := _key_of(request)) or any(request.headers.get(one.header) for one in self._admission.keys):
            self._refused.check(call.address)
            try:
                return self._keyring.identify(key) if key else self._by_header(request, route)
            except CredentialsError:
                self._refused.take(call.address)
                call.wrong_key = True
                raise
        cookie = request.cookies.get(self._sessions.cookie_name(secure=call.secure), "")
        if not cookie:
            identity = self._admission.without_key(route, call.address)
            if identity is not ANYBODY and (route.writes or route.kind is Kind.SOCKET):
                self._origins.check_page(request, said=route.kind is Kind.SOCKET)
            return identity
        identity = self._sessions.identify(cookie, call)
        if route.writes or route.kind is Kind.SOCKET:
            # A browser says from which page; without that, any program could have sent the cookie on.
            self._origins.check_page(request, said=True, own=True)
        return identity

    def _by_header(self, request: web.Request, route: AnyRoute) -> Identity:
        """Return the caller of the keys in headers of their own: of several, the one that may use the route.

        Raises CredentialsError if one of them is wrong.
        """
        found = [(one, sent) for one in self._admission.keys if (sent := request.headers.get(one.header))]
        # All are compared, so that the time shows nothing.
        right = [one.is_same(sent) for one, sent in found]
        if not all(right):
            wrong = found[right.index(False)][0].header
            raise CredentialsError(f"the key in {wrong} is not the one of this server", remedy=self._admission.remedy)
        permission, callers = route.permission, [one.identity for one, _ in found]
        fits = (one for one in callers if permission is not None and one.may(permission.scope, permission.role))
        return next(fits, callers[0])


def _key_of(request: web.Request) -> str:
    scheme, _, key = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else request.headers.get("X-Api-Key", "")
