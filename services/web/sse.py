"""The form of server-sent events. Which ones a client gets is in `vector`, how it gets them in `fanout`."""

#: Milliseconds after which a browser reconnects.
RETRY = b"retry: 2000\n\n"


def frame(name: str, body: bytes, event: bytes = b"") -> bytes:
    """Return one event as it is sent; without a name it is a message."""
    lines = [b"event: " + event] if event else []
    lines += [b"id: " + name.encode()] if name else []
    # A line break in a body would end its field; all three kinds of it do in this format.
    lines += [b"data: " + line for line in body.splitlines() or [b""]]
    return b"\n".join([*lines, b"", b""])
