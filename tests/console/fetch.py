"""Fetch what the tests of the console need: Debian's Chromium, and playwright-core and axe-core from npm.

python -m tests.console.fetch
"""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.real.fetch import CACHE, FetchError, Package, ensure

#: Seconds that apt may take for one of its steps.
APT = 300
PACKAGES = (
    Package(
        "playwright-core",
        "1.65.1",
        "hqPpz7blSMPxWVdoeE1yiBSzXsKiVOd2k+kjCvmUywD2GPO2Dd9HfcWnq9NN0GHbNZDFgZ9JfBFr+X5/BLo0qw==",
        "playwright-core",
    ),
    Package(
        "axe-core",
        "4.14.1",
        "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ==",
        "axe-core",
    ),
)


@dataclass(frozen=True, slots=True)
class BrowserParts:
    """A browser, the folder of the packages that drive and audit it, and what runs these."""

    chromium: str
    packages: Path
    node: str


def fetch() -> BrowserParts:
    """Return what drives a browser, fetching what is not there yet. Raises FetchError when that fails."""
    node = shutil.which("node")
    if node is None:
        raise FetchError("there is no node on this machine: install Node.js")
    ensure(*PACKAGES)
    return BrowserParts(_chromium(), CACHE / "node_modules", node)


def _chromium() -> str:
    if (found := shutil.which("chromium")) is not None:
        return found
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise FetchError("there is no chromium on this machine: install it, on Debian with `apt install chromium`")
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for step in (["update"], ["install", "--yes", "--no-install-recommends", "chromium", "fonts-dejavu-core"]):
        done = subprocess.run(
            ["apt-get", "-qq", *step], env=quiet, capture_output=True, text=True, timeout=APT, check=False
        )
        if done.returncode:
            raise FetchError(f"apt-get {step[0]} failed:\n{done.stderr[-2_000:]}")
    if (found := shutil.which("chromium")) is None:
        raise FetchError("apt-get installed chromium, and there is no such program")
    return found


if __name__ == "__main__":
    try:
        parts = fetch()
    except FetchError as failure:
        sys.exit(str(failure))
    sys.stdout.write(f"{parts.chromium} is driven by what is in {parts.packages}\n")
