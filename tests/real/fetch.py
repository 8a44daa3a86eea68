"""Fetch the foreign programs of the `real` tests: claude-mem, the zod it imports, the bun that runs it, Claude Code.

Each is one package of one version, packed by `npm pack` from whichever registry npm is configured for and unpacked here
only when its sha512 is the one written below. No dependency is resolved and no install script runs: claude-mem's own
dependencies belong to parts of it that the worker never loads.

    python -m tests.real.fetch
"""

import base64
import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

CACHE = Path(__file__).parents[2] / ".cache" / "claude-mem"

#: Seconds that one `npm pack` may take; bun's package has 50 MB.
PACK_TIMEOUT = 240

BUN_VERSION = "1.4.5"
BUN_SHA512 = {
    "linux-x64": "IWX9BELoGHAUtMonkeSaNaZwXzRk+oDw6Mk+HBFXd3KHYIBNBsIGRupMZPcgNoDbJpLu6gAJjIoIVPZtt1aJ1g==",
    "linux-x64-baseline": "s8yMwYcFnnrA178gji0gZbkE2WVDej/Ti1x770oPfihxyRxSMNhGhiAQNXV53aDeraZxksdvKV/RAdQBCd0qPA==",
    "linux-aarch64": "4BXmsSKnjOrlGWqZV4x/oWa7AVoR+B6lCXddMzOAXBIm3t50eslg9wb66gmtW1AamEQ1l1CDvmmruysEhqOWMg==",
    "darwin-x64": "qkLPMGHZM9NI6CeHTWwVezzmlo6cC4Ta7yUAjYIWXS366qQcOlcp75t2uZyiuVRBMPS0h9qE0tCcvCHGaFqjJg==",
    "darwin-aarch64": "4MIFXHmctH2EhAxLXm2/qxNtv17dFtLJylvaOCsrgq6KSqHTs6eW5YSrJjRbJxYUJaR901fsN8JfZOa+CsWpWQ==",
}
#: bun's names of processors.
PROCESSORS = {"x86_64": "x64", "amd64": "x64", "arm64": "aarch64"}


class ClaudeCode(StrEnum):
    """A version of Claude Code, by what it does with a plugin."""

    NEWEST = "2.1.329"
    WITHOUT_MODULES = "2.1.240"
    """It loads plugins from folders, but no module of theirs."""
    WITHOUT_FOLDERS = "2.1.156"
    """It loads no plugin that is only a folder: hooks are in its settings."""

    @property
    def sha512(self) -> dict[str, str]:
        """The sha512 of its package by platform."""
        return _CLAUDE_SHA512[self]


_CLAUDE_SHA512 = {
    ClaudeCode.NEWEST: {
        "linux-x64": "+n4lu1ubYAp02Y0X/MAUnxw9yY6SHHZ77F+IoW+V0wVoFuiI9opdH6gofjf14gXJCEYMTNpks7Gn1i8XZTKAWA==",
        "linux-aarch64": "IiG5umFToSCVWqB1lEsxxwIxKgxPXyZ3DRU915v8J4Bz5Q3JpslM0ew1m5yaT+lFXBPvYxmsEgi0XI68XHND0A==",
        "darwin-aarch64": "brgS94FOoB+ekq1gIeNpBtGAbzWxE1UEeBQWfk1KX1BStrMIxwWXriPfQLKEkFTWHpmGXv2fZxxMQJsR+5PhZw==",
        "darwin-x64": "6cjJiD19yxOzdnzErJ8ougFKoksK/wUvOJb6V2iCXg1rM9gGEY1I7HE8jQnvh6buAuXHtHaahfoiiISaplOxYg==",
    },
    ClaudeCode.WITHOUT_MODULES: {
        "linux-x64": "cyQBaMWj9svNFgO07Xu24CB2F/KMv/PTGm8KwX9mcOYR5m1VO7IQQ2HB+dWh6zG02FOfSeKLd/Rbw+wsuIecaA==",
        "linux-aarch64": "pzI3/EiPTkORSy4YcKy9r7ICrl5KjDZJLvIh8H6dIWR4KFzXZ0CPZakRqtWNr79HzJCczAz1DiSzbipbqHvMUg==",
        "darwin-aarch64": "r0rSze2908DMAdrdS7anrSukxxyH5RYWlCWFV9BIYHgl9U/vHMPHj2bpbQASV0CWUz3bVpJWAaldrbeT0znLIA==",
        "darwin-x64": "vFQraAqoIs/bIP6BpN8r8lP0Rety8g6J1ZoeWeyjCWj8FktvcAuM665NnzSk4juxiB4t/9h189UO3YB18MbPTA==",
    },
    ClaudeCode.WITHOUT_FOLDERS: {
        "linux-x64": "D9eUC8qGXZziGryE3Cu9kKmeSN1H8fLbDMVOyLm8wZ3r3CLdEXjtqsSsGO55mpFBsulEYZafW+ZKon5wMrl6aw==",
        "linux-aarch64": "bXmI5O4MyNeEOaoz762wtDjJyvbdP9eJrANwy29jHHL9pl/MPbcnYIOatmScVPjIossHmuqj0YUtx3iCeFr1dQ==",
        "darwin-aarch64": "IaPZAiqvxK+6dZr79GyL8Ni7AG61PXjY4+OmWhKa29LApJgYEPOCR0OEuNGNutOTuYGMe8r5Kxvu+vxOEaUUMQ==",
        "darwin-x64": "zTsP3nDiRPtz7IsZZsAIY7nl+Y83CmaWtybl4upu42jKia9Oz93COFxTvNwh51BHur8AY9ra9Nwy/qbDj/H8Iw==",
    },
}


class FetchError(Exception):
    """A package that could not be had, with what to do about it."""


@dataclass(frozen=True, slots=True)
class Package:
    """One npm package of one version, known by the sha512 of its tarball (base64, as npm writes it)."""

    name: str
    version: str
    sha512: str
    folder: str

    @property
    def path(self) -> Path:
        """Where it is unpacked."""
        return CACHE / "node_modules" / self.folder

    @property
    def stamp(self) -> Path:
        """The file that says which tarball was unpacked, whole, into `path`."""
        return CACHE / f"{self.folder.replace('/', '-')}.sha512"

    def is_present(self) -> bool:
        """Whether exactly this tarball was unpacked."""
        return self.path.is_dir() and self.stamp.is_file() and self.stamp.read_text(encoding="ascii") == self.sha512


@dataclass(frozen=True, slots=True)
class Programs:
    """What the tests run."""

    bun: Path
    worker_script: Path
    version: str


def bun_platform() -> str:
    """Return bun's name of this machine: system, processor and, on x64 without AVX2, `baseline`."""
    processor = platform.machine().lower()
    name = f"{platform.system().lower()}-{PROCESSORS.get(processor, processor)}"
    cpuinfo = Path("/proc/cpuinfo")
    if name == "linux-x64" and cpuinfo.is_file() and " avx2" not in cpuinfo.read_text(encoding="utf-8"):
        name += "-baseline"
    if name not in BUN_SHA512:
        raise FetchError(f"bun has no package for {platform.system()} on {platform.machine()}")
    return name


def packages() -> tuple[Package, Package, Package]:
    """Return the packages of this machine: bun, claude-mem, zod."""
    name = bun_platform()
    return (
        Package(f"@oven/bun-{name}", BUN_VERSION, BUN_SHA512[name], "bun"),
        Package(
            "claude-mem",
            "13.25.3",
            "Hqa33Vv8YJ5fnaHzZc3HC3JihHagHji5O9R66ZBIKn3DDPOlaDfI5X2oxuSdtp7kRMsEpMc2p7wMXPEe0kZG9g==",
            "claude-mem",
        ),
        Package(
            "zod",
            "4.6.7",
            "g8W2D2kU6a8untc053fX1uVBKzM7yqAxW/3zwk83+6RyF2+SKOuV+c0wBDhUwzV1PaGapmZH+rmcUzPf+3CGwg==",
            "zod",
        ),
    )


def fetch_claude(version: ClaudeCode = ClaudeCode.NEWEST) -> Path:
    """Return the `claude` program of this machine, fetched as the others are."""
    name = bun_platform().removesuffix("-baseline")
    if name not in version.sha512:
        raise FetchError(f"Claude Code has no package for {platform.system()} on {platform.machine()}")
    package = Package(
        f"@anthropic-ai/claude-code-{name.replace('aarch64', 'arm64')}",
        version.value,
        version.sha512[name],
        f"claude-code-{version.value}",
    )
    ensure(package)
    return package.path / "claude"


def fetch() -> Programs:
    """Return the programs, fetching what is not there yet; raise FetchError when that fails.

    Processes that call this at the same time wait for each other; what a broken run left is fetched again.
    """
    bun, claude_mem, zod = packages()
    ensure(bun, claude_mem, zod)
    return Programs(
        bun=bun.path / "bin" / "bun",
        worker_script=claude_mem.path / "plugin" / "scripts" / "worker-service.cjs",
        version=claude_mem.version,
    )


def ensure(*packages: Package) -> None:
    """Fetch the packages that are not there yet. Raises FetchError when that fails."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with _alone():
        for package in packages:
            if not package.is_present():
                _install(package)


@contextmanager
def _alone() -> Generator[None]:
    with (CACHE / "lock").open("w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _install(package: Package) -> None:
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        tarball = _pack(package, Path(scratch))
        _verify(package, tarball)
        with tarfile.open(tarball) as archive:
            # Python 3.11 before 3.11.4 has no filter; these bytes are known by their hash in any case.
            archive.extraction_filter = getattr(tarfile, "data_filter", lambda member, _: member)
            archive.extractall(Path(scratch) / "unpacked")  # noqa: S202  # the filter is set above
        package.stamp.unlink(missing_ok=True)
        if package.path.exists():
            shutil.rmtree(package.path)
        package.path.parent.mkdir(parents=True, exist_ok=True)
        (Path(scratch) / "unpacked" / "package").rename(package.path)
        package.stamp.write_text(package.sha512, encoding="ascii")


def _pack(package: Package, into: Path) -> Path:
    npm = shutil.which("npm")
    what = f"{package.name}@{package.version}"
    if npm is None:
        raise FetchError(f"cannot fetch {what}: there is no npm on this machine / install Node.js, which brings npm")
    command = [npm, "pack", what, "--silent", "--ignore-scripts", "--pack-destination", str(into)]
    try:
        result = subprocess.run(
            command, cwd=into, stdin=subprocess.DEVNULL, capture_output=True, text=True, encoding="utf-8",
            timeout=PACK_TIMEOUT, check=False, env={**os.environ, "npm_config_cache": str(CACHE / "npm")},
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise FetchError(f"fetching {what} took over {PACK_TIMEOUT} s / is npm's registry reachable?") from error
    tarballs = list(into.glob("*.tgz"))
    if result.returncode or len(tarballs) != 1:
        said = result.stderr[-2000:]
        raise FetchError(f"npm's registry did not supply {what} (npm exit {result.returncode}):\n{said}")
    return tarballs[0]


def _verify(package: Package, tarball: Path) -> None:
    with tarball.open("rb") as file:
        found = base64.b64encode(hashlib.file_digest(file, "sha512").digest()).decode()
    if found != package.sha512:
        raise FetchError(
            f"{package.name}@{package.version} is not the tarball it should be: sha512 {found}, not {package.sha512}"
        )


if __name__ == "__main__":
    try:
        programs = fetch()
        for version in ClaudeCode:
            fetch_claude(version)
    except FetchError as failure:
        sys.exit(str(failure))
    said = f"claude-mem {programs.version}, bun {BUN_VERSION} and Claude Code {', '.join(ClaudeCode)}"
    sys.stdout.write(f"{said} are in {CACHE}\n")
