"""Asks the daemon for fresh memory over its socket, and prints its line as the answer of a SessionStart hook.

    python -I -S session_start.py SOCKET HEARTBEAT WAIT_SECONDS DEFAULT_PROJECT [PROJECT] < the hook's JSON

It starts in 7 ms because it imports only what is compiled into Python. It prints nothing, and exits 0, if the daemon is
away, hangs, has nothing to say or answers with an error. PROJECT wins over CLAUDE_PROJECT_ID, which wins over
DEFAULT_PROJECT.
"""

# ruff: noqa: PTH116 - pathlib would take longer to load than the daemon to answer

import _json
import _socket
import os
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal
else:
    import _signal

#: A daemon that has not renewed its heartbeat for so many seconds hangs or is gone.
STALE = 6.0
#: Bytes of the hook's JSON that are read, and of an answer.
MOST_INPUT, MOST_ANSWER = 64 << 10, 256 << 10


def main() -> None:
    """Ask, and print what the daemon answers; end within the given time, whatever hangs."""
    path, heartbeat, seconds, project, chosen = (*sys.argv[1:6], "")[:5]
    project = chosen or os.environ.get("CLAUDE_PROJECT_ID") or project
    _signal.signal(_signal.SIGALRM, lambda _number, _frame: os._exit(0))
    _signal.setitimer(_signal.ITIMER_REAL, float(seconds))
    if time.time() - os.stat(heartbeat).st_mtime > STALE:  # noqa: TID251 - compared with the time of a file
        return
    context = context_in(answer(path, request(read_input(), project)))
    if context:
        text = _json.encode_basestring_ascii(context).encode()
        os.write(1, b'{"hookSpecificOutput":{"hookEventName":"SessionStart","additionalContext":%s}}\n' % text)


def read_input() -> bytes:
    """Return the hook's JSON."""
    content = b""
    while len(content) <= MOST_INPUT and (block := os.read(0, MOST_INPUT)):
        content += block
    return content


def request(body: bytes, project: str) -> bytes:
    """Return the request: the hook's own JSON, with the project as one more field."""
    if project:
        field = b'{"project":%s,' % _json.encode_basestring_ascii(project).encode()
        body = body.strip().replace(b"{", field, 1)
    head = b"POST /session-start HTTP/1.1\r\nHost: membridge\r\nContent-Type: application/json\r\n"
    return head + b"Content-Length: %d\r\nConnection: close\r\n\r\n" % len(body) + body


def answer(path: str, asked: bytes) -> bytes:
    """Return the body of the daemon's answer; nothing for an error."""
    socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    # The daemon's folder is a link, and what it leads to has a name that is short enough for a socket.
    socket.connect(os.path.realpath(path))
    socket.sendall(asked)
    received = b""
    while len(received) <= MOST_ANSWER and (block := socket.recv(MOST_ANSWER)):
        received += block
    head, _, body = received.partition(b"\r\n\r\n")
    return body if head.startswith((b"HTTP/1.1 200", b"HTTP/1.0 200")) else b""


def context_in(body: bytes) -> str:
    """Return the text under `context`; nothing when the daemon has nothing to say."""
    _, found, value = body.decode().partition('"context":')
    value = value.lstrip()
    return _json.scanstring(value, 1)[0] if found and value.startswith('"') else ""


if __name__ == "__main__":
    try:
        main()
    finally:
        os._exit(0)
