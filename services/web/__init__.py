"""The web kit: the base of every service that answers HTTP. It never knows a task, a project or a database.

A service declares each route once (`routes.Route`); validation, permission, document and test table derive from that.
"""

import importlib
import os
import sys
from contextlib import suppress
from types import ModuleType
from typing import Self, TypeVar, TypeVarTuple, Unpack

# Loaded before aiohttp: nats-py would take its websocket transport from it, which costs memory and is never used.
from membridge import bus as bus


def _type_var(name: str, *, covariant: bool = False, **for_type_checkers: object) -> TypeVar:
    """Make a type variable without the default that Python 3.11 does not know."""
    del for_type_checkers
    return TypeVar(name, covariant=covariant)  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues] - its name is the caller's


def _type_var_tuple(name: str, **for_type_checkers: object) -> TypeVarTuple:
    del for_type_checkers
    return TypeVarTuple(name)  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues] - its name is the caller's


#: What aiohttp takes from modules that services never use: a command line of its own, and types for type checkers.
_STAND_INS: dict[str, dict[str, object]] = {
    "argparse": {"ArgumentParser": None},
    "typing_extensions": {"TypeVar": _type_var, "TypeVarTuple": _type_var_tuple, "Self": Self, "Unpack": Unpack},
}


def _load_aiohttp() -> None:
    """Import aiohttp's server without what costs memory from its import on, and services never use.

    The certificates of all authorities, 2 MB: services make no HTTPS requests, and code that does in such a process
    needs an SSL context of its own. And two modules of 0.6 and 0.4 MB, which others may import afterwards.
    """
    names = ("SSL_CERT_FILE", "SSL_CERT_DIR")
    before = {name: os.environ[name] for name in names if name in os.environ}
    os.environ.update(dict.fromkeys(names, os.devnull))
    stand_ins = [name for name in _STAND_INS if name not in sys.modules]
    for name in stand_ins:
        sys.modules[name] = ModuleType(name)
        vars(sys.modules[name]).update(_STAND_INS[name])
    try:
        # A version that takes more from them gets the real ones below.
        with suppress(ImportError):
            importlib.import_module("aiohttp.web")
    finally:
        for name in stand_ins:
            del sys.modules[name]
        for name in names:
            del os.environ[name]
        os.environ.update(before)
    importlib.import_module("aiohttp.web")


if "aiohttp" not in sys.modules:
    _load_aiohttp()
