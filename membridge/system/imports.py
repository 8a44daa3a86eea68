"""Import a library while hiding optional dependencies that a daemon never uses.

Only to save memory: a library that is already loaded stays as it is, and the hidden ones can be imported afterwards.
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
