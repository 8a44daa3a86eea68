"""The addresses that this machine has on its networks, read from its interfaces without asking a server.

The machine's own name is of no use for that: on Debian it resolves to 127.0.1.1.
"""

import socket
import struct
from collections.abc import Iterator
from pathlib import Path

_INTERFACES_V6 = Path("/proc/net/if_inet6")
#: The ioctl of Linux that returns an interface's IPv4 address.
_SIOCGIFADDR = 0x8915
#: How addresses begin that lead nowhere from another machine: the loopback's, and those of one link.
_OWN = ("127.", "169.254.", "::1", "fe8", "fe9", "fea", "feb")


def own_addresses() -> list[str]:
    """Return the machine's addresses but those that only it can reach, IPv4 first. Blocking, for microseconds."""
    found = [*_v4(), *_v6()] or _by_name()
    outside = {address for address in found if not address.startswith(_OWN)}
    return sorted(outside, key=lambda address: (":" in address, address))


def parse_v6(text: str) -> list[str]:
    """Return the addresses of `/proc/net/if_inet6`."""
    return [socket.inet_ntop(socket.AF_INET6, bytes.fromhex(line.split()[0])) for line in text.splitlines()]


def _v4() -> Iterator[str]:
    try:
        names = [name for _, name in socket.if_nameindex()]
    except OSError:
        return
    import fcntl  # noqa: PLC0415 - Windows has none, and a client there has no presence

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for name in names:
            try:
                answer = fcntl.ioctl(probe.fileno(), _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
            except OSError:
                continue  # no IPv4 there, or no Linux
            yield socket.inet_ntoa(answer[20:24])


def _v6() -> list[str]:
    try:
        return parse_v6(_INTERFACES_V6.read_text("ascii"))
    except OSError:
        return []


def _by_name() -> list[str]:
    """Return what the machine's name resolves to, where its interfaces cannot be read."""
    try:
        return socket.gethostbyname_ex(socket.gethostname())[2]
    except OSError:
        return []
