"""Import libraries without the parts that a daemon never uses.

Only to save memory: a library that is already loaded stays as it is, and what was left out can be imported afterwards.
"""

import importlib
import importlib.util
import sys
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType


def load_without(library: str, unused: Sequence[str]) -> None:
    """Import `library` while an import of any of `unused` fails."""
    if library.partition(".")[0] not in sys.modules:
        with hidden(unused):
            importlib.import_module(library)


@contextmanager
def hidden(unused: Sequence[str]) -> Generator[None]:
    """Let an import of any of `unused` fail that is not loaded yet."""
    refused = [name for name in unused if name not in sys.modules]
    for name in refused:
        sys.modules[name] = None  # type: ignore[assignment]  # the documented way to make an import fail
    try:
        yield
    finally:
        for name in refused:
            del sys.modules[name]


def on_first_use(modules: Iterable[str]) -> None:
    """Let an import of any of `modules` load it only once a name is asked of it.

    For modules outside packages that others import and, in a daemon, never come to need.
    """
    for module in modules:
        if module not in sys.modules:
            sys.modules[module] = _stand_in(module)


def load_later(library: str, package: str, ready: Mapping[str, object]) -> None:
    """Import `library`, and its sub-package `package` only once a name is asked of it that is not in `ready`.

    The package is one that `library` imports whole, and whose other names only calls use that a daemon never makes.
    """
    found = importlib.util.find_spec(library)
    if library in sys.modules or found is None or found.submodule_search_locations is None:
        return
    full = f"{library}.{package}"
    partly = _stand_in(full)
    partly.__path__ = [f"{place}/{package}" for place in found.submodule_search_locations]
    vars(partly).update(ready)
    sys.modules[full] = partly
    setattr(importlib.import_module(library), package, partly)


def _stand_in(module: str) -> ModuleType:
    made = ModuleType(module)

    def whole(name: str) -> object:
        if sys.modules.get(module) is made:
            del sys.modules[module]
        return getattr(importlib.import_module(module), name)

    vars(made)["__getattr__"] = whole
    return made
