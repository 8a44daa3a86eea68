"""Everything that speaks NATS: connection, requests, KV, leases, streams, feeds, publishing.

The only place that loads the client library. Never knows what a message means: rows, commits and tasks are its
callers'.

nats-py imports aiohttp for websockets when it finds it, and importlib.metadata for its own version number: 13 MB that a
daemon never uses. The library is loaded once without them. A process that needs them loads them itself, before or
after.
"""

import sys

from membridge.system.imports import load_without

if "aiohttp" not in sys.modules:
    load_without("nats.aio.client", ["aiohttp", "importlib.metadata"])
