"""Fetch busybox, whose shell and tools are Alpine's: Debian's static build, unpacked into `.cache`.

python -m tests.install.fetch
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.real.fetch import CACHE, FetchError

#: Seconds that apt may take.
APT = 300
BUSYBOX = CACHE / "busybox"


def fetch() -> Path:
    """Return the folder with busybox and a link for each of its tools."""
    if not (BUSYBOX / "sh").exists():
        if shutil.which("apt-get") is None:
            raise FetchError("there is no apt-get on this machine to download busybox-static with")
        with tempfile.TemporaryDirectory(dir=_made(CACHE)) as folder:
            _run("apt-get", "-qq", "download", "busybox-static", cwd=folder, again=("apt-get", "-qq", "update"))
            (package,) = Path(folder).glob("*.deb")
            _run("dpkg-deb", "--extract", package.name, "root", cwd=folder)
            tools = Path(folder, "tools")
            tools.mkdir()
            shutil.copy2(Path(folder, "root/bin/busybox"), tools / "busybox")
            for name in _run(str(tools / "busybox"), "--list", cwd=folder).split():
                if name != "busybox":
                    (tools / name).symlink_to("busybox")
            shutil.rmtree(BUSYBOX, ignore_errors=True)
            tools.rename(BUSYBOX)
    return BUSYBOX


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _run(*command: str, cwd: str, again: tuple[str, ...] = ()) -> str:
    """Run a command; if it fails, run `again` and try once more: a bare machine has no lists of packages."""
    for prepare in (None, again):
        if prepare:
            subprocess.run(prepare, cwd=cwd, timeout=APT, check=False, capture_output=True)
        done = subprocess.run(command, cwd=cwd, timeout=APT, check=False, capture_output=True, text=True)
        if done.returncode == 0:
            return done.stdout
    raise FetchError(f"{' '.join(command)} failed:\n{done.stderr[-2_000:]}")


if __name__ == "__main__":
    try:
        sys.stdout.write(f"{fetch()}\n")
    except FetchError as failure:
        sys.exit(str(failure))
