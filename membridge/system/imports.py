"""Loads a library without other ones that it takes where it finds them, and that a daemon never uses.

For memory alone: a library that is loaded already is left as it is, and what was refused can be imported afterwards.
"""

import importlib
import sys
from collections.abc import Sequence


def load_without(library: str, unused: Sequence[str]) -> None:
    """Import `library` while an import of any of `unused` fails."""
    if library.partition(".")[0] in sys.modules:
        return
    refused = [name for name in unused if name not in sys.modules]
    for name in refused:
        sys.modules[name] = None  # type: ignore[assignment]  # the documented way to make an import fail
    try:
        importlib.import_module(library)
    finally:
        for name in refused:
            del sys.modules[name]
