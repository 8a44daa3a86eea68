"""Which pages may use a server: by the host name that a browser asked, and by the site that the page is from.

Pages of other sites may not, unless the settings name their origin. Those show a key as a program does: a cookie never
counts there, and no answer permits a browser to send one (CORS without credentials).
"""

from collections.abc import Collection, Sequence
from urllib.parse import urlsplit

from aiohttp import hdrs, web

from membridge.errors import ForbiddenError, MisdirectedError
from services.web.errors import HEADERS, NoSuchMethodError

#: Host names that a server on this machine always answers to.
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
#: Headers that a page elsewhere may send, beside those of keys, and those of an answer that it may read.
SENT = (hdrs.AUTHORIZATION, hdrs.CONTENT_TYPE, "Last-Event-ID", "X-Api-Key", "X-Request-Id")
SHOWN = (hdrs.RETRY_AFTER, "X-Request-Id")
#: Seconds for which a browser remembers the answer to its preflight.
REMEMBERED = 600


class Origins:
    """The pages that may use a server: `hosts` are its further names, `allowed` the origins of pages elsewhere.

    `key_headers` are the headers of keys that a page may show beside an issued one.
    """

    def __init__(
        self, *, hosts: Collection[str] = (), allowed: Collection[str] = (), key_headers: Sequence[str] = ()
    ) -> None:
        self._hosts, self._allowed = LOOPBACK | frozenset(hosts), frozenset(allowed)
        self._sent = ", ".join((*SENT, *key_headers))

    @property
    def some_elsewhere(self) -> bool:
        """Whether pages of other sites may use the server at all."""
        return bool(self._allowed)

    def check_host(self, request: web.BaseRequest) -> str:
        """Return the host name, unless it is another one: the owner of a page may have pointed its own name here."""
        try:
            name = urlsplit(f"//{request.headers.get(hdrs.HOST, '')}").hostname or ""
        except ValueError:
            name = ""
        if name not in self._hosts:
            raise MisdirectedError(
                f"this server does not answer to the host name {name or '(none)'}",
                remedy="use its address, or a host name from its settings",
            )
        return name

    def check_page(self, request: web.BaseRequest, *, said: bool = False, own: bool = False) -> None:
        """Refuse what a page of another site has a browser send.

        With `said` the request must name its site; with `own` also the pages that the settings allow are refused.
        """
        site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get(hdrs.ORIGIN)
        if not own and origin in self._allowed:
            return
        if site is not None:
            allowed = site in {"same-origin", "none"}
        elif origin is not None:
            allowed = origin.partition("://")[2] == request.headers.get(hdrs.HOST)
        else:
            # No browser: those send one of the two.
            allowed = not said
        if not allowed:
            raise ForbiddenError(
                "a page of another site sent this request", remedy="send it from a page of this server"
            )

    async def permit(self, request: web.BaseRequest, response: web.StreamResponse) -> None:
        """Let the browser show an answer to the page that asked, if that page is allowed."""
        # Also to a request without an origin: a cache between must not serve its answer to another one.
        response.headers.add(hdrs.VARY, hdrs.ORIGIN)
        origin = request.headers.get(hdrs.ORIGIN)
        if origin in self._allowed:
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
            response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = ", ".join(SHOWN)

    def preflight(self, request: web.BaseRequest, methods: Sequence[str], request_id: str) -> web.Response:
        """Answer a browser that asks whether a page elsewhere may send a request. Raises the refusal."""
        self.check_host(request)
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is None or hdrs.ACCESS_CONTROL_REQUEST_METHOD not in request.headers:
            raise NoSuchMethodError(request.method, methods)
        if origin not in self._allowed:
            raise ForbiddenError(
                "pages of that origin may not use this server",
                remedy="add it to the origins that this server's settings name",
            )
        headers = {
            **HEADERS,
            "X-Request-Id": request_id,
            hdrs.ACCESS_CONTROL_ALLOW_METHODS: ", ".join(methods),
            hdrs.ACCESS_CONTROL_ALLOW_HEADERS: self._sent,
            hdrs.ACCESS_CONTROL_MAX_AGE: str(REMEMBERED),
        }
        return web.Response(status=204, headers=headers)
