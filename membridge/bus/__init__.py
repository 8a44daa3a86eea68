"""Everything that speaks NATS: connection, requests, KV, leases, streams, feeds, publishing.

The only place that loads the client library. Never knows what a message means: rows, commits and tasks belong to its
callers.

nats-py imports aiohttp for websockets if it is installed, and importlib.metadata for its own version number: 13 MB that
a daemon never uses. So nats-py is imported once while they are hidden. It also imports its JetStream client, whose API
`bus.jetstream` speaks itself, with a parser of emails: 2 MB, of which its core needs three names of headers. A process
that needs any of that imports it, before or after.
"""

import sys

from membridge.bus.headers import Api
from membridge.system.imports import hidden, load_later

if "aiohttp" not in sys.modules:
    with hidden(["aiohttp", "importlib.metadata"]):
        load_later("nats", "js", {"api": Api()})
