"""Checks of the environment that this interpreter runs from, and of the settings. Nothing outside of them is asked."""

import importlib
import importlib.metadata
import re
import struct
import subprocess
import sys
from collections import defaultdict
from collections.abc import Generator
from pathlib import Path

import membridge
from membridge import embedded
from membridge.errors import MembridgeError
from membridge.node.findings import fail, ok, warn
from membridge.node.interpreter import gone
from membridge.settings import Settings
from membridge.system.windows import on_windows
from schemas.node import Check

#: Modules with compiled code: a wheel for another processor or C library installs, and fails when it is imported.
COMPILED = ("apsw", "msgspec", "uvloop", "zstandard", "nacl.bindings", "cryptography.hazmat.bindings._rust", "asyncpg")
#: Those of them that have no wheel for Windows.
NOT_ON_WINDOWS = frozenset({"uvloop"})
#: Seconds for which nats-server may say its version: the first start reads it from a slow card.
ANSWERS = 20
AGAIN = "install it again with install.sh"
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)([^\\\n]*)", re.MULTILINE)


def interpreter() -> Check:
    """Check the Python of this environment."""
    name, version = "interpreter", ".".join(map(str, sys.version_info[:3]))
    real, bits = Path(sys.executable).resolve(), struct.calcsize("P") * 8
    if (dead := gone(name)) is not None:
        return dead
    if sys.version_info < (3, 11) or bits != 64:
        return fail(name, f"{real} is Python {version} with {bits} bits", "use a 64-bit Python 3.11 or newer")
    return ok(name, f"Python {version}, {real}")


def packages() -> Check:
    """Check that each package of the lock file is here in its version, and that those with compiled code load."""
    name = "packages"
    broken = list(_that_fail_to_load())
    if broken:
        return fail(name, "; ".join(broken), AGAIN)
    lock = Path(embedded.__file__).with_name("requirements.lock")
    if not lock.is_file():
        return ok(name, f"membridge {membridge.__version__} from a source tree: its compiled packages load")
    differ = list(_that_differ(lock.read_text("utf-8")))
    if differ:
        return warn(name, f"other than the lock file says: {', '.join(differ)}", AGAIN)
    return ok(name, f"membridge {membridge.__version__} with the packages of its lock file")


def _that_fail_to_load() -> Generator[str]:
    for module in COMPILED:
        if on_windows() and module in NOT_ON_WINDOWS:
            continue
        try:
            importlib.import_module(module)
        except (ImportError, OSError) as error:
            yield f"{module} cannot be loaded: {error}"


def _that_differ(lock: str) -> Generator[str]:
    pinned: defaultdict[str, list[str]] = defaultdict(list)
    for package, version, _ in _PIN.findall(lock):
        pinned[package].append(version)
    # A package with a marker is for other platforms, or has another version there.
    everywhere = {package for package, _, marker in _PIN.findall(lock) if not marker.strip()}
    for package, versions in pinned.items():
        try:
            found = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            if package in everywhere:
                yield f"{package} is missing"
            continue
        if found not in versions:
            yield f"{package} {found} instead of {' or '.join(versions)}"


def nats_server() -> Check:
    """Check that the bundled nats-server runs on this processor."""
    from membridge.embedded.nats_server import find_binary  # noqa: PLC0415 - not on Windows

    name = "nats-server"
    try:
        binary = find_binary()
        done = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=ANSWERS, check=True)  # noqa: S603 - our own program
    except MembridgeError as error:
        return warn(name, error.message, error.remedy)
    except (OSError, subprocess.SubprocessError) as error:
        return fail(name, f"it does not run: {error}", AGAIN)
    return ok(name, done.stdout.strip())


def settings(found: Settings | MembridgeError) -> Check:
    """Check that the settings can be read; their warnings are the doctor's."""
    if isinstance(found, MembridgeError):
        return fail("settings", found.message, found.remedy or "see `membridge config reference`")
    return ok("settings", f"node {found.node.id}, project {found.project.name}")


def environment(found: Settings | MembridgeError) -> list[Check]:
    """Return the checks that need nothing but this environment and the settings. Blocking."""
    server = [] if on_windows() else [nats_server()]
    return [interpreter(), packages(), *server, settings(found)]
