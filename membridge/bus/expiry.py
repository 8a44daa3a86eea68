"""What expires in a bucket, as the server tells it: by its clock, not by that of whoever wrote the entry.

The markers of expiry go to consumers only, so there is one here, which ends with its reader. What expires while the
connection is down is told by nobody: whoever listens looks again now and then.
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

#: Seconds without any news after which the consumer is looked for, and after which one without a reader ends.
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
    """Return the key that expired, an empty string for other news, None for none in a while."""
    try:
        async with asyncio.timeout(LOOK):
            message = await messages.next()
    except TimeoutError:
        return None
    if message is None:
        # The connection is another one; the consumer may have gone with the old one's server.
        return None
    if message.headers.get("Nats-Marker-Reason") != "MaxAge":
        return ""
    return message.subject.rpartition(".")[2]


async def _there(kv: Kv[V], name: str) -> bool:
    return await jetstream.has_consumer(kv.bus, kv.stream, name, deadline=Deadline.after(ASK))
