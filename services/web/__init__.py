"""The web kit: the base of every service that answers HTTP. It never knows a task, a project or a database.

A service declares each route once (`routes.Route`); validation, permission, document and test table derive from that.
"""

import importlib
import os
import sys
from types import ModuleType

from membridge.system.imports import load_without

# Archives, which nothing here makes; 0.2 MB.
load_without("shutil", ["bz2", "lzma"])

# Loaded before aiohttp: nats-py would take its websocket transport from it, which costs memory and is never used.
from membridge import bus as bus  # noqa: E402 - as said


def _load_aiohttp() -> None:
    """Import aiohttp's server without two things that cost memory from its import on, and that services never use.

    The certificates of all authorities, 2 MB: services make no HTTPS requests, and code that does in such a process
    needs an SSL context of its own. And `argparse`, 0.6 MB, for a command line of aiohttp's own.
    """
    names = ("SSL_CERT_FILE", "SSL_CERT_DIR")
    before = {name: os.environ[name] for name in names if name in os.environ}
    os.environ.update(dict.fromkeys(names, os.devnull))
    if stands_in := "argparse" not in sys.modules:
        sys.modules["argparse"] = ModuleType("argparse")
        vars(sys.modules["argparse"])["ArgumentParser"] = None
    try:
        importlib.import_module("aiohttp.web")
    finally:
        if stands_in:
            del sys.modules["argparse"]
        for name in names:
            del os.environ[name]
        os.environ.update(before)


if "aiohttp" not in sys.modules:
    _load_aiohttp()
