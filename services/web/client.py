"""Requests to another server that answers HTTP: bounded in time and size, tried again where that can help."""

import asyncio
import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp

from membridge.aio.deadline import Deadline
from membridge.errors import CorruptObjectError, UnavailableError

#: Seconds of one try, how many tries, and seconds before the second; each further pause is twice as long.
TRY, TRIES, PAUSE = 10.0, 3, 0.5
#: Bytes of an answer at most.
ANSWER = 8 << 20
#: Statuses after which the same request may succeed.
_AGAIN = frozenset({502, 503, 504})


@dataclass(frozen=True, slots=True)
class Reply:
    """What another server answered."""

    status: int
    body: bytes


async def fetch(
    method: str, url: str, *, body: bytes | None, headers: Mapping[str, str], deadline: Deadline, tries: int = TRIES
) -> Reply:
    """Send a request. A read is tried again when the server does not answer.

    Redirects are not followed: they would take the key to another server. Errors: UnavailableError when it does not
    answer, CorruptObjectError for an answer that is too large.
    """
    tries = tries if method == "GET" else 1
    pause = PAUSE
    # Loaded here: services have no certificates of authorities in memory, and few ever ask another server.
    context = False if url.startswith("http:") else ssl.create_default_context()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context, limit=4)) as session:
        for left in range(tries - 1, -1, -1):
            try:
                async with asyncio.timeout(min(TRY, max(0.0, deadline.remaining()))):
                    reply = await _once(session, method, url, body, headers)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                if left == 0 or deadline.remaining() < pause:
                    raise UnavailableError(
                        f"{url} does not answer: {_reason(error)}", remedy="check the address, and that the server runs"
                    ) from error
            else:
                if reply.status not in _AGAIN or left == 0 or deadline.remaining() < pause:
                    return reply
            await asyncio.sleep(pause)
            pause *= 2
    raise AssertionError("the last try returns or raises")


async def _once(
    session: aiohttp.ClientSession, method: str, url: str, body: bytes | None, headers: Mapping[str, str]
) -> Reply:
    async with session.request(method, url, data=body, headers=headers, allow_redirects=False) as answer:
        content = await answer.content.read(ANSWER)
        if not answer.content.at_eof():
            raise CorruptObjectError(f"{url} answered more than {ANSWER:,} bytes")
        return Reply(answer.status, content)


def _reason(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(cause, OSError) and (cause.errno or 0) > 0:
        # asyncio's own words for it are a tuple.
        return os.strerror(cause.errno or 0)
    return " ".join(str(cause).split())[:300]
