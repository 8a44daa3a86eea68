"""The bus: everything that speaks NATS for this system, and the only place that loads the client library.

nats-py imports aiohttp for websockets when it finds it, and importlib.metadata for its own version number: 13 MB that a
daemon never uses. The library is loaded once without them; a process that uses them itself loads them before or after.
"""

import sys

from membridge.system.imports import load_without

if "aiohttp" not in sys.modules:
    load_without("nats.aio.client", ["aiohttp", "importlib.metadata"])
