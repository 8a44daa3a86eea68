"""Another Membridge server that `/api/membridge` is passed on to: its address, its key, and how it answered last.

The key is sent to that server alone. It never reaches a browser: answers show its last four characters.
"""

from typing import Any
from urllib.parse import quote

import msgspec

from membridge.errors import CorruptObjectError, InvalidRequestError, MembridgeError, RemoteError, UnavailableError
from membridge.settings import Settings
from membridge.settings.kinds import ENDPOINT
from membridge.system import clock
from schemas.errors import ErrorCode, ErrorReply
from schemas.gateway import ConnectionTest, RuntimeConfig, SetRuntimeConfig
from schemas.gateway_nats import Federation
from schemas.node import Empty
from schemas.wire import Wire, WireError, decode, encode
from services.gateway.settings import GatewaySettings
from services.web import client
from services.web.mirror import Mirror
from services.web.routes import AnyRoute, Call, Endpoint, Handler

#: The one entry of its bucket.
_KEPT = "server"
#: Characters of a key that are shown.
SHOWN = 4
_BY_STATUS = {404: ErrorCode.NOT_FOUND, 409: ErrorCode.CONFLICT, 400: ErrorCode.INVALID_REQUEST}


class Federated:
    """The other server, if one is configured: over HTTP, or by the settings."""

    def __init__(self, settings: Settings, kept: Mirror[Federation]) -> None:
        own = settings.of(GatewaySettings)
        key = own.admin_key.reveal() if own.admin_key is not None else ""
        self._given = Federation(server_url=own.server_url or "", admin_key=key if own.server_url else "")
        self._kept, self._home = kept, settings.node.state_dir
        self._said = ""

    @property
    def server(self) -> Federation:
        """The server that is configured, with an empty address where none is. Raises UnavailableError."""
        entry = self._kept.entries().get(_KEPT)
        return entry.value if entry is not None else self._given

    def config(self) -> RuntimeConfig:
        """Return the configuration as it is shown."""
        server = self.server
        source = "console" if _KEPT in self._kept.entries() else "environment" if server.server_url else "none"
        return RuntimeConfig(
            server_url=server.server_url, admin_key=masked(server.admin_key), source=source, connection=self._said
        )

    async def show(self, _: Empty, __: Call) -> RuntimeConfig:
        """Return the configuration as it is shown."""
        return self.config()

    async def set(self, request: SetRuntimeConfig, call: Call) -> RuntimeConfig:
        """Configure a server, or none. A new server gets no key that was meant for another one."""
        before, url = self.server, ""
        if request.server_url:
            try:
                url = ENDPOINT.parse(request.server_url, self._home)
            except ValueError as error:
                raise InvalidRequestError(
                    f"server_url is not an address: {ENDPOINT.allowed} is", field="server_url"
                ) from error
        kept = before.admin_key if url == before.server_url else ""
        key = kept if request.admin_key is None else request.admin_key
        await self._kept.kv.put(_KEPT, Federation(server_url=url, admin_key=key), deadline=call.deadline)
        await self._kept.refresh()
        self._said = ""
        return self.config()

    async def test(self, _: Empty, call: Call) -> ConnectionTest:
        """Ask the configured server how it is; no other one."""
        server = self.server
        if not server.server_url:
            return ConnectionTest(ok=False, detail="no server is configured: this one answers itself")
        began = clock.now()
        try:
            await self._fetch("GET", "/health", None, call, tries=1)
        except MembridgeError as error:
            return ConnectionTest(ok=False, server_url=server.server_url, detail=error.message)
        took = (clock.now() - began).total_seconds() * 1_000
        return ConnectionTest(ok=True, server_url=server.server_url, detail="connected", latency_ms=round(took, 1))

    def endpoint(self, route: AnyRoute, answer: Handler, *, old_path: str) -> Endpoint:
        """Return a route that the configured server answers at `old_path`, and this one while none is configured."""

        async def ask(request: Any, call: Call) -> Wire:
            if not self.server.server_url:
                return await answer(request, call)
            fields = {name: quote(str(getattr(request, name)), safe="") for name in route.path_fields}
            body = encode(request) if route.has_body else None
            reply = await self._fetch(route.method.value, old_path.format_map(fields), body, call)
            try:
                return decode(reply, route.reply, limit=client.ANSWER)
            except WireError as error:
                raise CorruptObjectError(f"{self.server.server_url} answers something else: {error}") from error

        return route.bind(ask)

    async def _fetch(
        self, method: str, path: str, body: bytes | None, call: Call, *, tries: int = client.TRIES
    ) -> bytes:
        server = self.server
        headers = {"X-MEMBRIDGE-ADMIN": server.admin_key} if server.admin_key else {}
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            reply = await client.fetch(
                method, f"{server.server_url}{path}", body=body, headers=headers, deadline=call.deadline, tries=tries
            )
        except MembridgeError as error:
            self._said = error.message
            raise
        if reply.status < 300:
            self._said = "connected"
            return reply.body
        told = _told(reply)
        # What a Membridge server refuses for a reason of the request says that it answers.
        self._said = (
            "connected" if told and reply.status in _BY_STATUS else f"{server.server_url} answers {reply.status}"
        )
        raise _refusal(server.server_url, reply.status, told)


def masked(key: str) -> str:
    """Return a key as it is shown."""
    return f"…{key[-SHOWN:]}" if len(key) > 2 * SHOWN else "…" if key else ""


def _told(reply: client.Reply) -> str:
    """Return the reason in a refusal; empty if there is none."""
    try:
        return str(msgspec.json.decode(reply.body, type=dict[str, Any]).get("detail", ""))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""


def _refusal(url: str, status: int, told: str) -> MembridgeError:
    """Return the error of another server as ours; one about its key is not about the caller's."""
    code = _BY_STATUS.get(status)
    if code is None:
        return UnavailableError(
            f"{url} answers {status}", remedy="check its key: POST /api/runtime/config with admin_key"
        )
    return RemoteError(ErrorReply(code=code, message=told or f"{url} answers {status}"))
