"""The bus: everything that speaks NATS for this system, and the only place that loads the client library.

nats-py imports aiohttp for websockets when it finds it, and importlib.metadata for its own version number: 13 MB that a
daemon never uses. The library is loaded once without them; a process that uses them itself loads them before or after.
"""

import importlib
import sys

#: What nats-py can do without.
_UNUSED = ("aiohttp", "importlib.metadata")


def _load_nats() -> None:
    if "nats" in sys.modules or "aiohttp" in sys.modules:
        return
    refused = [name for name in _UNUSED if name not in sys.modules]
    for name in refused:
        sys.modules[name] = None  # type: ignore[assignment]  # the documented way to make an import fail
    try:
        importlib.import_module("nats.aio.client")
    finally:
        for name in refused:
            del sys.modules[name]


_load_nats()
