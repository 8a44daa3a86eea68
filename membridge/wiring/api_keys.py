"""API keys of services that answer HTTP: how one is made, stored and revoked.

A key is `mbk_ID_SECRET`. The id names it in lists, logs and the audit; of the secret, 256 bits by chance, only the
sha256 is stored.
"""

import base64
import secrets
from datetime import timedelta
from hashlib import sha256

import msgspec

from membridge.aio.deadline import Deadline
from membridge.bus.kv import Kv
from membridge.errors import (
    BusUnavailableError,
    DeadlineExceededError,
    MembridgeError,
    NotFoundError,
    RevisionMovedError,
)
from membridge.system import clock
from schemas.web import ApiKey, IssuedKey, IssueKeyRequest, KeyInfo, KeyUse

#: The beginning of every key, so that people and secret scanners recognise one.
PREFIX = "mbk"


def digest(secret: str) -> str:
    """Return the sha256 of a secret, which alone is stored."""
    return sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def shown(key: ApiKey, last_used_at: str | None = None) -> KeyInfo:
    """Return a key as it is shown."""
    info = KeyInfo(**{one.name: getattr(key, one.name) for one in msgspec.structs.fields(KeyInfo)})
    return msgspec.structs.replace(info, last_used_at=last_used_at)


async def last_uses(kv: Kv[KeyUse], *, deadline: Deadline) -> dict[str, str]:
    """Return when each key was last used, by its id."""
    return {key_id: entry.value.at for key_id, entry in (await kv.entries(deadline=deadline)).items()}


async def all_keys(kv: Kv[ApiKey], uses: Kv[KeyUse], *, deadline: Deadline) -> list[KeyInfo]:
    """Return every key, the newest first."""
    used = await last_uses(uses, deadline=deadline)
    entries = await kv.entries(deadline=deadline)
    found = [shown(entry.value, used.get(key_id)) for key_id, entry in entries.items()]
    return sorted(found, key=lambda key: (key.created_at, key.id), reverse=True)


async def issue(kv: Kv[ApiKey], wanted: IssueKeyRequest, *, by: str, deadline: Deadline) -> IssuedKey:
    """Make and store a key. Errors: those of the bus."""
    key_id, secret = base64.b32encode(secrets.token_bytes(8))[:12].decode().lower(), secrets.token_urlsafe(32)
    now = clock.now()
    key = ApiKey(
        id=key_id,
        name=wanted.name,
        role=wanted.role,
        scopes=wanted.scopes,
        sha256=digest(secret),
        created_at=clock.stamp(now),
        created_by=by,
        expires_at=None if wanted.days is None else clock.stamp(now + timedelta(days=wanted.days)),
    )
    await _keep(kv, key, deadline=deadline)
    return IssuedKey(key=shown(key), secret=f"{PREFIX}_{key_id}_{secret}")


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


async def revoke(kv: Kv[ApiKey], key_id: str, *, by: str, deadline: Deadline) -> KeyInfo:
    """Revoke a key; once more it changes nothing. Raises NotFoundError."""
    entry = await kv.get(key_id, deadline=deadline)
    if entry is None:
        raise NotFoundError(f"there is no key {key_id}", remedy="`membridge api-key`, or GET /api/v1/keys, lists them")
    key = entry.value
    if key.revoked_at is None:
        key = msgspec.structs.replace(key, revoked_at=clock.stamp(), revoked_by=by)
        await kv.update(key_id, key, revision=entry.revision, deadline=deadline)
    return shown(key)
