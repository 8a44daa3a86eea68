"""API keys: issued once, stored as a hash, looked up in memory, revoked within a second on every server.

How a key is made and stored is in `membridge.wiring.api_keys`. A key is compared in constant time whether or not its
id exists.
"""

import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from hmac import compare_digest

from membridge.aio.deadline import Deadline
from membridge.aio.lifecycle import Ready
from membridge.bus.kv import Kv
from membridge.errors import CredentialsError, ForbiddenError, MembridgeError
from membridge.system import clock
from membridge.wiring.api_keys import PREFIX, digest, issue, revoke, shown
from schemas.errors import ErrorCode
from schemas.node import Empty
from schemas.web import ApiKey, IssuedKey, IssueKeyRequest, KeyInfo, KeyRequest, KeysReply, Role
from services.web.identity import Identity
from services.web.key_uses import KeyUses
from services.web.mirror import Mirror
from services.web.routes import Call, Endpoint, Method, Permission, Route

__all__ = ["LONGEST", "PREFIX", "HeaderKey", "Keyring", "endpoints", "issue"]

#: Characters of a key at most.
LONGEST = 256
#: Compared with when there is no key of that id: the answer takes as long.
_NOBODY = sha256(secrets.token_bytes(32)).hexdigest()
_REFUSED = "the key is not valid: it is unknown, expired or revoked"
_REMEDY = "ask an administrator for a new key"
_ADMIN = Permission("keys", Role.ADMIN)

LIST = Route("keys", Method.GET, "/api/v1/keys", Empty, KeysReply, "Every API key.", _ADMIN)
ISSUE = Route("issue_key", Method.POST, "/api/v1/keys", IssueKeyRequest, IssuedKey, "Issue a key.", _ADMIN, status=201)
REVOKE = Route(
    "revoke_key", Method.DELETE, "/api/v1/keys/{id}", KeyRequest, KeyInfo, "Revoke a key.", _ADMIN,
    errors=(ErrorCode.NOT_FOUND,),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class HeaderKey:
    """A key from the settings, which callers send in a header of its own; only its sha256 is kept."""

    header: str
    sha256: bytes
    identity: Identity
    #: Whether a browser may log in with it.
    logs_in: bool = False

    @classmethod
    def of(cls, header: str, secret: str, identity: Identity, *, logs_in: bool = False) -> "HeaderKey":
        """Return the key `secret`."""
        return cls(header, _hashed(secret), identity, logs_in)

    @property
    def mark(self) -> str:
        """What tells this key from another one in the same place."""
        return self.sha256.hex()[:16]

    def is_same(self, text: str) -> bool:
        """Whether `text` is this key; the time that it takes shows nothing."""
        return compare_digest(_hashed(text), self.sha256)


class Keyring:
    """The keys of a system, of which each server has a copy; `run` keeps it current."""

    def __init__(self, kv: Kv[ApiKey]) -> None:
        self._mirror = Mirror(kv)

    async def run(self, ready: Ready) -> None:
        """Keep the copy current until cancelled."""
        await self._mirror.run(ready)

    async def refresh(self) -> None:
        """Read the copy anew now."""
        await self._mirror.refresh()

    async def check(self) -> None:
        """Raise UnavailableError while keys cannot be read."""
        self._mirror.entries()

    def listen(self, changed: Callable[[], None]) -> None:
        """Have `changed` called whenever a key was issued or revoked."""
        self._mirror.listen(changed)

    def identify(self, text: str) -> Identity:
        """Return the caller of the key `text`. Raises CredentialsError; UnavailableError while keys cannot be read."""
        entries = self._mirror.entries()
        prefix, _, rest = text[:LONGEST].partition("_")
        key_id, _, secret = rest.partition("_")
        entry = entries.get(key_id)
        stored = _NOBODY if entry is None else entry.value.sha256
        same = compare_digest(digest(secret), stored)
        if not same or entry is None or prefix != PREFIX or not _is_valid(entry.value):
            raise CredentialsError(_REFUSED, remedy=_REMEDY)
        return _identity(entry.value)

    def holder(self, key_id: str) -> Identity:
        """Return the caller of the key of an id, with its rights now. Raises CredentialsError if it is not valid."""
        entry = self._mirror.entries().get(key_id)
        if entry is None or not _is_valid(entry.value):
            raise CredentialsError(_REFUSED, remedy=_REMEDY)
        return _identity(entry.value)

    def all(self, used: Mapping[str, str]) -> list[KeyInfo]:
        """Return every key, the newest first; `used` says when each was last used."""
        found = [shown(entry.value, used.get(key_id)) for key_id, entry in self._mirror.entries().items()]
        return sorted(found, key=lambda key: (key.created_at, key.id), reverse=True)

    async def issue(self, wanted: IssueKeyRequest, *, by: Identity, deadline: Deadline) -> IssuedKey:
        """Make a key without rights that `by` does not have. Raises ForbiddenError."""
        if beyond := [scope for scope in wanted.scopes if not by.may(scope, wanted.role)]:
            raise ForbiddenError(
                f"your key cannot grant the role {wanted.role} for {', '.join(beyond)}: it does not have it",
                remedy="use a key that has it",
                field="scopes",
            )
        issued = await issue(self._mirror.kv, wanted, by=by.actor, deadline=deadline)
        # Known here at once; a read that fails is made again by `run`.
        with suppress(MembridgeError):
            await self._mirror.refresh()
        return issued

    async def revoke(self, key_id: str, *, by: Identity, deadline: Deadline) -> KeyInfo:
        """Revoke a key; its sessions and streams end too. Raises NotFoundError."""
        found = await revoke(self._mirror.kv, key_id, by=by.actor, deadline=deadline)
        # This server's own copy at once; the others read it after the news.
        await self._mirror.refresh()
        return found


def endpoints(keyring: Keyring, uses: KeyUses) -> list[Endpoint]:
    """Return the routes by which administrators see, issue and revoke keys."""

    async def listed(_: Empty, call: Call) -> KeysReply:
        return KeysReply(keys=keyring.all(await uses.times(deadline=call.deadline)))

    async def issued(request: IssueKeyRequest, call: Call) -> IssuedKey:
        return await keyring.issue(request, by=call.identity, deadline=call.deadline)

    async def revoked(request: KeyRequest, call: Call) -> KeyInfo:
        return await keyring.revoke(request.id, by=call.identity, deadline=call.deadline)

    return [LIST.bind(listed), ISSUE.bind(issued), REVOKE.bind(revoked)]


def _hashed(secret: str) -> bytes:
    return sha256(secret.encode("utf-8", "surrogateescape")).digest()


def _is_valid(key: ApiKey) -> bool:
    in_time = key.expires_at is None or clock.parse(key.expires_at) > clock.now()
    return key.revoked_at is None and in_time


def _identity(key: ApiKey) -> Identity:
    return Identity(key.id, key.name, key.role, frozenset(key.scopes))
