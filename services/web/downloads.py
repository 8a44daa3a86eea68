"""Files for a browser to save: sent part by part, so that one of any size takes the memory of a part.

A client that does not read is disconnected, and so is one whose key was revoked. A file that cannot be read to its end
ends the connection before the length that was announced: no client takes it for whole.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from aiohttp import hdrs, web

from services.web.errors import HEADERS
from services.web.routes import Call
from services.web.streaming import Streams, taken_within


@dataclass(frozen=True, slots=True)
class Download:
    """A file: its name, its size, and its parts in order."""

    name: str
    size_bytes: int
    parts: AsyncGenerator[bytes]


async def send_file(
    request: web.Request, call: Call, streams: Streams, file: Download, content_type: str
) -> web.StreamResponse:
    """Send a file. Errors: OverloadedError at the bounds of streams, what its parts raise, ConnectionResetError."""
    response = web.StreamResponse(
        headers={
            **HEADERS,
            "X-Request-Id": call.request_id,
            hdrs.CONTENT_TYPE: content_type,
            hdrs.CONTENT_LENGTH: str(file.size_bytes),
            hdrs.CONTENT_DISPOSITION: f'attachment; filename="{file.name}"',
        }
    )
    async with aclosing(file.parts) as parts, streams.opened(call, "download"):
        call.streaming = True
        try:
            await response.prepare(request)
            async for part in parts:
                async with taken_within(streams.limits.slow, request, "file"):
                    await response.write(part)
            await response.write_eof()
        except BaseException:
            # Nothing else may follow what was sent, least of all an error that would count as the rest of the file.
            if request.transport is not None:
                request.transport.abort()
            raise
        return response
    raise ConnectionResetError("the download was ended")
