"""The bus: everything that speaks NATS for this system, and the only place that loads the client library.

nats-py imports aiohttp for websockets when it finds it, which costs a daemon 10 MB that it never uses: here the
library is loaded once without it. A process that uses aiohttp itself loads it before or after, unharmed.
"""

import importlib
import sys


def _load_nats() -> None:
    if "nats" in sys.modules or "aiohttp" in sys.modules:
        return
    sys.modules["aiohttp"] = None  # type: ignore[assignment]  # the documented way to make an import fail
    try:
        importlib.import_module("nats.aio.client")
    finally:
        del sys.modules["aiohttp"]


_load_nats()
