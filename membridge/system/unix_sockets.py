"""Who is at the other end of a socket file or socket pair: asked of the Linux kernel, which tells every user."""

import socket
import struct

#: Of linux/netlink.h, linux/sock_diag.h and linux/unix_diag.h.
_SOCK_DIAG, _BY_FAMILY = 4, 20
_REQUEST_DUMP = 0x301
_ERROR, _DONE = 2, 3
_SHOW_PEER, _PEER = 4, 2
_ALL_STATES = 0xFFFFFFFF

_HEADER = struct.Struct("=IHHII")
_QUESTION = struct.Struct("=BBHIIIII")
_ANSWER = struct.Struct("=BBBxIII")
_ATTRIBUTE = struct.Struct("=HH")


def peers() -> dict[int, int]:
    """Return the inode of each unix socket's peer by its own inode, 0 without one or when that is closed.

    Blocking; raises OSError.
    """
    question = _QUESTION.pack(socket.AF_UNIX, 0, 0, _ALL_STATES, 0, _SHOW_PEER, 0, 0)
    found: dict[int, int] = {}
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _SOCK_DIAG) as asked:
        asked.settimeout(5.0)
        asked.send(_HEADER.pack(_HEADER.size + len(question), _BY_FAMILY, _REQUEST_DUMP, 1, 0) + question)
        while True:
            answer = asked.recv(1 << 18)
            at = 0
            while at + _HEADER.size <= len(answer):
                length, kind, _, _, _ = _HEADER.unpack_from(answer, at)
                if kind == _DONE:
                    return found
                if kind == _ERROR:
                    raise OSError("the kernel does not tell about unix sockets")
                inode, peer = _read(answer[at + _HEADER.size : at + length])
                found[inode] = peer
                at += (length + 3) & ~3


def _read(body: bytes) -> tuple[int, int]:
    inode = _ANSWER.unpack_from(body)[3]
    at = _ANSWER.size
    while at + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, at)
        if kind == _PEER:
            return inode, struct.unpack_from("=I", body, at + _ATTRIBUTE.size)[0]
        at += max((length + 3) & ~3, _ATTRIBUTE.size)
    return inode, 0
