"""The web kit: what every service that answers HTTP stands on. It never knows a task, a project or a database.

A service declares each route once (`routes.Route`); validation, permission, document and test table derive from that.
"""

import importlib
import os
import sys

# Loaded before aiohttp: nats-py would take its websocket transport from it, which costs memory and is never used.
from membridge import bus as bus


def _load_aiohttp() -> None:
    """Import aiohttp without the certificates of all authorities, 2 MB that its client holds from its import on.

    Services call nobody over HTTPS; whoever does in such a process makes an SSL context of its own.
    """
    names = ("SSL_CERT_FILE", "SSL_CERT_DIR")
    before = {name: os.environ[name] for name in names if name in os.environ}
    os.environ.update(dict.fromkeys(names, os.devnull))
    try:
        importlib.import_module("aiohttp")
    finally:
        for name in names:
            del os.environ[name]
        os.environ.update(before)


if "aiohttp" not in sys.modules:
    _load_aiohttp()
