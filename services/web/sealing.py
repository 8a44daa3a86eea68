"""The keys that seal cookies: in KV, the same on every server, a new one each day.

The gateway keeps nothing on disk. The bucket has the current key and the one before it: a cookie that an older key
sealed opens until it is over. A new key seals only once every server has had time to read it.
"""

import asyncio
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from contextlib import suppress
from hashlib import sha256
from typing import NoReturn

from nacl.exceptions import CryptoError
from nacl.secret import SecretBox

from membridge.aio.backoff import jittered
from membridge.aio.deadline import Deadline
from membridge.aio.lifecycle import Ready
from membridge.aio.tasks import background
from membridge.bus.kv import Kv
from membridge.errors import MembridgeError, RevisionMovedError, UnavailableError
from membridge.system import clock
from membridge.system.logging import get_logger
from membridge.wiring.bus import made_again
from schemas.web import SessionSecret
from services.web.mirror import Mirror

log = get_logger("membridge.web")

#: Seconds that a key is the current one: longer than any session, so that the key before it opens every older cookie.
ROTATE = 86_400
#: Seconds before a new key seals, in which the other servers read it.
SETTLE = 60
#: Seconds between two looks at the age of the key, and that making one may take.
LOOK, MAKE = 600.0, 10.0
#: Bytes of a key.
SIZE = 32
#: The one entry of its bucket.
_SHARED = "cookies"


class SealingKeys:
    """Seals and opens cookies; `agree` must have succeeded once, and `run` keeps the keys current."""

    def __init__(self, kv: Kv[SessionSecret]) -> None:
        self._mirror = Mirror(kv)
        self._changed = asyncio.Event()
        self._mirror.listen(self._changed.set)

    async def run(self, ready: Ready) -> None:
        """Keep the keys current and rotate them until cancelled."""
        async with background() as group:
            group.create_task(self._mirror.run(ready), name="copy of the keys")
            # A NATS server that comes back empty has no key.
            group.create_task(made_again(self._mirror.kv.bus, self.agree), name="keys after a reconnect")
            await self._rotate()

    async def agree(self, deadline: Deadline) -> None:
        """Make the first key, or the next one when it is time; then read what all servers use. Errors: of the bus."""
        kv = self._mirror.kv
        kept = await kv.get(_SHARED, deadline=deadline)
        made = SessionSecret(
            secret=secrets.token_urlsafe(SIZE),
            made_at=clock.stamp(),
            previous="" if kept is None else kept.value.secret,
        )
        try:
            if kept is None:
                await kv.create(_SHARED, made, deadline=deadline)
            elif _age(kept.value) > ROTATE:
                await kv.update(_SHARED, made, revision=kept.revision, deadline=deadline)
        except RevisionMovedError:
            log.debug("another server made the key first")
        await self._mirror.refresh()
        self._current()

    def seal(self, content: bytes) -> str:
        """Return `content` encrypted and authenticated, as text of a cookie. Raises UnavailableError."""
        kept = self._current()
        is_new = kept.previous and _age(kept) < SETTLE
        return urlsafe_b64encode(_box(kept.previous if is_new else kept.secret).encrypt(content)).decode().rstrip("=")

    def unseal(self, text: str) -> bytes | None:
        """Return what was sealed, None if none of the keys sealed it. Raises UnavailableError."""
        kept = self._current()
        try:
            sealed = urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
        except ValueError:
            return None
        for secret in (kept.secret, kept.previous):
            try:
                if secret:
                    return _box(secret).decrypt(sealed)
            except (CryptoError, ValueError):
                continue
        return None

    def _current(self) -> SessionSecret:
        entry = self._mirror.entries().get(_SHARED)
        if entry is None:
            raise UnavailableError("the key of sessions cannot be read at present", remedy="try again")
        return entry.value

    async def _rotate(self) -> NoReturn:
        while True:
            # A key that somebody deleted is made again at once.
            with suppress(TimeoutError):
                async with asyncio.timeout(jittered(LOOK)):
                    await self._changed.wait()
            self._changed.clear()
            try:
                await self.agree(Deadline.after(MAKE))
            except MembridgeError as error:
                log.warning("key of sessions not rotated", reason=error.message)


def _age(kept: SessionSecret) -> float:
    """Return the seconds since the key was made; one without a date is as old as can be."""
    return float("inf") if kept.made_at is None else (clock.now() - clock.parse(kept.made_at)).total_seconds()


def _box(secret: str) -> SecretBox:
    return SecretBox(sha256(b"membridge session cookie " + secret.encode()).digest())
