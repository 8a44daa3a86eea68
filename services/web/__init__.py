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


def _escaped(text: str, quote: bool = True) -> str:  # noqa: FBT001, FBT002 - as the original
    """Do what `html.escape` does, whose module brings the names of two thousand characters."""
    for sign, name in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(sign, name)
    return text.replace('"', "&quot;").replace("'", "&#x27;") if quote else text


#: What aiohttp takes from modules that services never use: a command line of its own, files of cookies, types for type
#: checkers; and the one function of a large module.
_STAND_INS: dict[str, dict[str, object]] = {
    "argparse": {"ArgumentParser": None},
    "html": {"escape": _escaped},
    "pickle": {"_Unpickler": object},
    "typing_extensions": {"TypeVar": _type_var, "TypeVarTuple": _type_var_tuple, "Self": Self, "Unpack": Unpack},
}


def _load_aiohttp() -> None:
    """Import aiohttp's server without what costs memory from its import on, and services never use.

    The certificates of all authorities, 2 MB: services make no HTTPS requests, and code that does in such a process
    needs an SSL context of its own. And four modules of 0.4 to 0.6 MB, which others may import afterwards.
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
        with suppress(ImportError, AttributeError):
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
