"""Everything that speaks NATS: connection, requests, KV, leases, streams, feeds, publishing.

The only place that loads the client library. Never knows what a message means: rows, commits and tasks belong to its
callers.

nats-py imports aiohttp for websockets if it is installed, and importlib.metadata for its own version number: 13 MB that
a daemon never uses. So nats-py is imported once while they are hidden. A process that needs them imports them itself,
before or after.
"""

import sys

from membridge.system.imports import load_without

if "aiohttp" not in sys.modules:
    load_without("nats.aio.client", ["aiohttp", "importlib.metadata"])
