"""A stand-in of the Messages API on loopback: streams one block of text, and keeps what it was asked."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass(slots=True)
class MessagesApi:
    """A running stand-in: where it is, what it says, and the bodies that it was sent."""

    text: str = "the stand-in speaks"
    url: str = ""
    asked: list[dict[str, object]] = field(default_factory=list[dict[str, object]])

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection's requests."""
        while head := await _head(reader):
            length = next((int(line.split(":")[1]) for line in head if line.lower().startswith("content-length")), 0)
            body = json.loads(await reader.readexactly(length) or b"{}") if length else {}
            if "/v1/messages" in head[0] and "messages" in body and "count_tokens" not in head[0]:
                self.asked.append(body)
                kind, content = "text/event-stream", _stream(self.text)
            else:
                kind, content = "application/json", b'{"input_tokens": 7}'
            writer.write(f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(content)}\r\n\r\n".encode())
            writer.write(content)
            await writer.drain()
        writer.close()


@asynccontextmanager
async def messages_api() -> AsyncGenerator[MessagesApi]:
    """Run the stand-in during the body."""
    api = MessagesApi()
    server = await asyncio.start_server(api.answer, "127.0.0.1", 0)
    api.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server:
        yield api


async def _head(reader: asyncio.StreamReader) -> list[str]:
    try:
        return (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
    except (asyncio.IncompleteReadError, ConnectionResetError):
        return []


def _stream(text: str) -> bytes:
    usage = {"input_tokens": 11, "output_tokens": 5}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "stand-in", "content": [],
               "stop_reason": None, "stop_sequence": None, "usage": usage}  # fmt: skip
    events = [
        {"type": "message_start", "message": message},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}},
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": usage},
        {"type": "message_stop"},
    ]
    return "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events).encode()
