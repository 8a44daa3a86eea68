"""Fetch what the tests of `deploy/` need and a bare machine lacks: Debian's systemd, for `systemd-analyze` alone.

python -m tests.deploy.fetch
"""

import os
import shutil
import subprocess
import sys

from tests.real.fetch import FetchError

#: Seconds that apt may take for one of its steps, with the wait for another apt.
APT = 300
PROGRAM = "systemd-analyze"


def fetch() -> str:
    """Return the program, installing it where apt can. Raises FetchError when that fails."""
    if (found := shutil.which(PROGRAM)) is not None:
        return found
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise FetchError(
            f"there is no {PROGRAM} on this machine: install systemd, on Debian with `apt install systemd`"
        )
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for step in (["update"], ["install", "--yes", "--no-install-recommends", "systemd"]):
        command = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=240", *step]
        done = subprocess.run(command, env=quiet, capture_output=True, text=True, timeout=APT, check=False)
        if done.returncode:
            raise FetchError(f"apt-get {step[0]} failed:\n{done.stderr[-2_000:]}")
    if (found := shutil.which(PROGRAM)) is None:
        raise FetchError(f"apt-get installed systemd, and there is no {PROGRAM}")
    return found


if __name__ == "__main__":
    try:
        sys.stdout.write(f"{fetch()}\n")
    except FetchError as failure:
        sys.exit(str(failure))
