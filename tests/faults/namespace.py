"""A machine with a network of its own, whose cable can be pulled: a network namespace, or a frozen proxy without one.

In a namespace nothing is refused or reset while the cable is out: packets are lost, connections stay half open, and
addresses cannot be reached, as with a real one. The addresses are of the range for benchmarks and lead nowhere.
"""

import os
import secrets
import shutil
import subprocess
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from membridge.testing.relay import Relay, State, relay


@dataclass(frozen=True, slots=True)
class Cable:
    """How a machine is connected: what its commands run through, its address of a local port, and the plug."""

    through: tuple[str, ...]
    reach: Callable[[int], Awaitable[str]]
    pull: Callable[[], None]
    plug: Callable[[], None]


@asynccontextmanager
async def cable() -> AsyncGenerator[Cable]:
    """Connect a machine by a namespace where this one may make such, else by proxies."""
    async with AsyncExitStack() as stack:
        made = _make_namespace()
        relays: list[Relay] = []
        if made is None:

            async def by_proxy(port: int) -> str:
                opened = await stack.enter_async_context(relay("127.0.0.1", port))
                relays.append(opened)
                return f"127.0.0.1:{opened.port}"

            def all_of(state: State) -> None:
                for one in relays:
                    one.set(state)

            yield Cable((), by_proxy, lambda: all_of(State.FROZEN), lambda: all_of(State.OPEN))
            return
        name, near, address = made
        stack.callback(_ip, "netns", "delete", name)

        async def by_cable(port: int) -> str:
            opened = await stack.enter_async_context(relay("127.0.0.1", port, listen=address))
            return f"{address}:{opened.port}"

        yield Cable(
            ("nsenter", f"--net=/run/netns/{name}"),
            by_cable,
            lambda: _ip("link", "set", near, "down"),
            lambda: _ip("link", "set", near, "up"),
        )


def _make_namespace() -> tuple[str, str, str] | None:
    """Make a namespace with one cable; return its name, the near end and its address, None where none may be made."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return None
    tag = secrets.token_hex(3)
    name, near, far = f"mb-{tag}", f"mb{tag}a", f"mb{tag}b"
    # A block of four addresses of 198.18.0.0/15.
    block = secrets.randbelow(1 << 15) * 4
    high, middle, low = 18 + (block >> 16), block >> 8 & 255, block & 255
    near_address, far_address = (f"198.{high}.{middle}.{low + end}" for end in (1, 2))
    try:
        _ip("netns", "add", name)
    except subprocess.CalledProcessError:
        return None
    try:
        _ip("link", "add", near, "type", "veth", "peer", "name", far, "netns", name)
        _ip("addr", "add", f"{near_address}/30", "dev", near)
        _ip("link", "set", near, "up")
        for arguments in (("addr", "add", f"{far_address}/30", "dev", far), ("link", "set", far, "up"),
                          ("link", "set", "lo", "up")):  # fmt: skip
            _ip("-n", name, *arguments)
    except subprocess.CalledProcessError:
        _ip("netns", "delete", name)
        return None
    return name, near, near_address


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
