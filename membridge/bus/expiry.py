"""Follow what expires in a bucket: by the server's clock, not the writer's.

The server sends expiry markers only to consumers, so this makes one, which ends with its reader. It misses what expires
while the connection is down: a reader also checks the bucket now and then.
"""

import asyncio
import secrets
from collections.abc import AsyncGenerator
from typing import TypeVar

from membridge.aio.backoff import jittered
from membridge.aio.deadline import Deadline
from membridge.bus import jetstream
from membridge.bus.kv import Kv
from membridge.bus.subscription import Subscription
from membridge.errors import MembridgeError
from membridge.system.logging import get_logger
from schemas.wire import Wire

V = TypeVar("V", bound=Wire)

log = get_logger("membridge.bus")

#: Seconds without news until the consumer is checked, and until one without a reader ends.
LOOK, FORGOTTEN = 15.0, 60.0
#: Seconds that making or finding the consumer may take.
ASK = 5.0
#: Messages that may wait here.
BOUND = 8_192


async def expiries(kv: Kv[V]) -> AsyncGenerator[str]:
    """Yield the key of each entry that expires from now on."""
    while True:
        inbox, name = kv.bus.new_inbox(), f"expiries-{secrets.token_hex(8)}"
        async with kv.bus.subscribe(inbox, bound=BOUND) as messages:
            try:
                await _listen(kv, name, inbox)
                while (key := await _next(messages)) is not None or await _there(kv, name):
                    if key:
                        yield key
            except MembridgeError as error:
                log.debug("expiries not heard", name=kv.bucket.name, reason=error.message)
                await asyncio.sleep(jittered(LOOK))


async def _listen(kv: Kv[V], name: str, inbox: str) -> None:
    config: dict[str, object] = {
        "name": name,
        "deliver_subject": inbox,
        "deliver_policy": "new",
        "ack_policy": "none",
        "headers_only": True,
        "mem_storage": True,
        "num_replicas": 1,
        "inactive_threshold": jetstream.nanoseconds(FORGOTTEN),
    }
    await jetstream.create_consumer(
        kv.bus, kv.stream, config, filter_subject=kv.pattern(), deadline=Deadline.after(ASK)
    )


async def _next(messages: Subscription) -> str | None:
    """Return the key that expired, an empty string for other news, None if no news came."""
    try:
        async with asyncio.timeout(LOOK):
            message = await messages.next()
    except TimeoutError:
        return None
    if message is None:
        # This is a new connection; the consumer may be gone with the old one's server.
        return None
    if message.headers.get("Nats-Marker-Reason") != "MaxAge":
        return ""
    return message.subject.rpartition(".")[2]


async def _there(kv: Kv[V], name: str) -> bool:
    return await jetstream.has_consumer(kv.bus, kv.stream, name, deadline=Deadline.after(ASK))
