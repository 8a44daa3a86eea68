"""Build the foreign programs of the `interop` tests: the stock `nats` command line and a MinIO server.

Each is one Go module of one version, built by `go install` from whichever module proxy Go is configured for, and only
when its checksum is the one written below. What was built once stays in the cache folder of this clone.

    python -m tests.interop.fetch
"""

import fcntl
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CACHE = Path(__file__).parents[2] / ".cache" / "interop"

#: Seconds that downloading the sources may take, and compiling them: MinIO has 900 packages.
DOWNLOAD_TIMEOUT, BUILD_TIMEOUT = 300, 1500


class BuildError(Exception):
    """A program that could not be built, with what to do about it."""


@dataclass(frozen=True, slots=True)
class Module:
    """One Go program: its module, version and checksum (as `go.sum` writes it), and its package below the module."""

    path: str
    version: str
    checksum: str
    package: str = ""

    @property
    def name(self) -> str:
        """The file name that `go install` gives the program."""
        return (self.package or self.path).rpartition("/")[2]

    @property
    def program(self) -> Path:
        """Where it is once it was built."""
        return CACHE / f"{self.name}-{self.version}"


NATS = Module(
    "github.com/nats-io/natscli", "v0.5.1", "h1:Z15ij3P1VlcXOwLUa6kjNEoaVCTDQADctq4GTP1CXnA=", package="/nats"
)
MINIO = Module(
    "github.com/minio/minio",
    "v0.0.0-20260212201848-7aac2a2c5b7c",
    "h1:/qdoYujxF5MBLDMVLeiYJ/7fBa1HikX39Dvzb9Ji8pA=",
)


def build(module: Module) -> Path:
    """Return the program of `module`, built when it is not there yet; raise BuildError when that fails.

    Processes that call this at the same time wait for each other.
    """
    CACHE.mkdir(parents=True, exist_ok=True)
    with _alone():
        if not module.program.is_file():
            _check(module)
            _go(module, BUILD_TIMEOUT, "install", f"{module.path}{module.package}@{module.version}")
            (CACHE / "bin" / module.name).replace(module.program)
    return module.program


@contextmanager
def _alone() -> Generator[None]:
    with (CACHE / "lock").open("w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _check(module: Module) -> None:
    """Refuse a source that is not the one written above."""
    found: dict[str, Any] = json.loads(
        _go(module, DOWNLOAD_TIMEOUT, "mod", "download", "-json", f"{module.path}@{module.version}")
    )
    if found.get("Sum") != module.checksum:
        raise BuildError(
            f"{module.path}@{module.version} is not the source it should be: {found.get('Sum')}, not {module.checksum}"
        )


def _go(module: Module, timeout: float, *arguments: str) -> str:
    what, go = f"{module.path}@{module.version}", shutil.which("go")
    if go is None:
        raise BuildError(f"cannot build {what}: there is no Go on this machine. Install Go 1.24 or newer.")
    # Out of the clone: no go.mod or vendor folder above the current folder may have a say.
    environment = {**os.environ, "GOBIN": str(CACHE / "bin"), "GOFLAGS": "-buildvcs=false"}
    try:
        result = subprocess.run(
            [go, *arguments], cwd=CACHE, stdin=subprocess.DEVNULL, capture_output=True, text=True, encoding="utf-8",
            timeout=timeout, check=False, env=environment,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise BuildError(f"building {what} took over {timeout:.0f} s. Is Go's module proxy reachable?") from error
    if result.returncode:
        raise BuildError(f"could not build {what}: `go {arguments[0]}` failed:\n{result.stderr[-2000:]}")
    return result.stdout


if __name__ == "__main__":
    try:
        programs = [build(module) for module in (NATS, MINIO)]
    except BuildError as failure:
        sys.exit(str(failure))
    sys.stdout.write("".join(f"{program.name} is in {program.parent}\n" for program in programs))
