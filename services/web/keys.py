"""API keys: issued once, stored as a hash, looked up in memory, revoked within a second on every server.

A key is `mbk_ID_SECRET`. The id names it in lists, logs and the audit; of the secret, 256 bits by chance, only the
sha256 is stored, and it is compared in constant time whether or not the id exists.
"""

import base64
import secrets
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from hashlib import sha256
from hmac import compare_digest

import msgspec

from membridge.aio.deadline import Deadline
from membridge.aio.lifecycle import Ready
from membridge.bus.kv import Kv
from membridge.errors import (
    BusUnavailableError,
    CredentialsError,
    DeadlineExceededError,
    ForbiddenError,
    MembridgeError,
    NotFoundError,
    RevisionMovedError,
)
from membridge.system import clock
from schemas.node import Empty
from schemas.web import ApiKey, IssuedKey, IssueKeyRequest, KeyInfo, KeyRequest, KeysReply, Role
from services.web.identity import Identity
from services.web.mirror import Mirror
from services.web.routes import Call, Endpoint, Method, Permission, Route

#: The beginning of every key, so that people and secret scanners recognise one.
PREFIX = "mbk"
#: Characters of a key at most.
LONGEST = 256
#: Compared with when there is no key of that id: the answer takes as long.
_NOBODY = sha256(secrets.token_bytes(32)).hexdigest()
_REFUSED = "the key is not valid: it is unknown, expired or revoked"
_REMEDY = "ask an administrator for a new key"
_ADMIN = Permission("keys", Role.ADMIN)

LIST = Route("keys", Method.GET, "/api/v1/keys", Empty, KeysReply, "Every API key.", _ADMIN)
ISSUE = Route("issue_key", Method.POST, "/api/v1/keys", IssueKeyRequest, IssuedKey, "Issue a key.", _ADMIN, status=201)
REVOKE = Route("revoke_key", Method.DELETE, "/api/v1/keys/{id}", KeyRequest, KeyInfo, "Revoke a key.", _ADMIN)


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
        same = compare_digest(_hash(secret), stored)
        if not same or entry is None or prefix != PREFIX or not _is_valid(entry.value):
            raise CredentialsError(_REFUSED, remedy=_REMEDY)
        return _identity(entry.value)

    def holder(self, key_id: str) -> Identity:
        """Return the caller of the key of an id, with its rights now. Raises CredentialsError if it is not valid."""
        entry = self._mirror.entries().get(key_id)
        if entry is None or not _is_valid(entry.value):
            raise CredentialsError(_REFUSED, remedy=_REMEDY)
        return _identity(entry.value)

    def all(self) -> list[KeyInfo]:
        """Return every key, the newest first."""
        found = [_shown(entry.value) for entry in self._mirror.entries().values()]
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
        kv = self._mirror.kv
        entry = await kv.get(key_id, deadline=deadline)
        if entry is None:
            raise NotFoundError(f"there is no key {key_id}", remedy="GET /api/v1/keys lists them")
        key = entry.value
        if key.revoked_at is None:
            key = msgspec.structs.replace(key, revoked_at=clock.stamp(), revoked_by=by.actor)
            await kv.update(key_id, key, revision=entry.revision, deadline=deadline)
            # This server's own copy at once; the others read it after the news.
            await self._mirror.refresh()
        return _shown(key)


async def issue(kv: Kv[ApiKey], wanted: IssueKeyRequest, *, by: str, deadline: Deadline) -> IssuedKey:
    """Make and store a key; a system's first key is made only by this."""
    key_id, secret = base64.b32encode(secrets.token_bytes(8))[:12].decode().lower(), secrets.token_urlsafe(32)
    now = clock.now()
    key = ApiKey(
        id=key_id,
        name=wanted.name,
        role=wanted.role,
        scopes=wanted.scopes,
        sha256=_hash(secret),
        created_at=clock.stamp(now),
        created_by=by,
        expires_at=None if wanted.days is None else clock.stamp(now + timedelta(days=wanted.days)),
    )
    await _keep(kv, key, deadline=deadline)
    return IssuedKey(key=_shown(key), secret=f"{PREFIX}_{key_id}_{secret}")


async def _keep(kv: Kv[ApiKey], key: ApiKey, *, deadline: Deadline) -> None:
    """Store a new key. A lost answer is looked up: a second key would leave the first one without a holder."""
    try:
        await kv.create(key.id, key, deadline=_half(deadline))
    except (BusUnavailableError, DeadlineExceededError) as error:
        left = _half(deadline)
        try:
            if await kv.get(key.id, deadline=left) is None:
                await kv.create(key.id, key, deadline=left)
        except RevisionMovedError:
            # The first try came through after all.
            return
        except MembridgeError:
            raise DeadlineExceededError(
                f"no answer from NATS: the key {key.id} may be stored",
                remedy=f"if GET /api/v1/keys lists it, revoke it: DELETE /api/v1/keys/{key.id}; then issue another",
            ) from error


def _half(deadline: Deadline) -> Deadline:
    """Return a deadline after half of the remaining time."""
    return deadline.sooner(deadline.remaining() / 2)


def endpoints(keyring: Keyring) -> list[Endpoint]:
    """Return the routes by which administrators see, issue and revoke keys."""

    async def listed(_: Empty, __: Call) -> KeysReply:
        return KeysReply(keys=keyring.all())

    async def issued(request: IssueKeyRequest, call: Call) -> IssuedKey:
        return await keyring.issue(request, by=call.identity, deadline=call.deadline)

    async def revoked(request: KeyRequest, call: Call) -> KeyInfo:
        return await keyring.revoke(request.id, by=call.identity, deadline=call.deadline)

    return [LIST.bind(listed), ISSUE.bind(issued), REVOKE.bind(revoked)]


def _hash(secret: str) -> str:
    return sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _is_valid(key: ApiKey) -> bool:
    in_time = key.expires_at is None or clock.parse(key.expires_at) > clock.now()
    return key.revoked_at is None and in_time


def _identity(key: ApiKey) -> Identity:
    return Identity(key.id, key.name, key.role, frozenset(key.scopes))


def _shown(key: ApiKey) -> KeyInfo:
    fields = {one.name: getattr(key, one.name) for one in msgspec.structs.fields(KeyInfo)}
    return KeyInfo(**fields)
