"""Every platform of ours installs `requirements.lock` from wheels alone: nothing is compiled on somebody's board.

uv resolves the lock file for each platform, from the index that pip is configured for, and downloads no wheel. Its
cache is in the clone: a second run asks only what the index says anew.
"""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "requirements.lock"
#: uv's names: manylinux 2.28, musllinux 1.2 and macOS 13, which the oldest supported systems have. Windows is a client.
PLATFORMS = (
    "x86_64-manylinux_2_28",
    "aarch64-manylinux_2_28",
    "x86_64-unknown-linux-musl",
    "aarch64-unknown-linux-musl",
    "aarch64-apple-darwin",
    "x86_64-apple-darwin",
    "x86_64-pc-windows-msvc",
)
#: The oldest Python that is supported, and the newest that all dependencies have wheels for.
PYTHONS = ("3.11", "3.14")
#: Seconds for one platform; the first one asks the index for some forty packages.
PATIENCE = 180.0


def _environment() -> dict[str, str]:
    """Return what uv needs to use pip's index, which it does not read from pip's configuration."""
    pip = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True, timeout=PATIENCE
    )
    names = {"index-url": "UV_DEFAULT_INDEX", "extra-index-url": "UV_INDEX", "cert": "SSL_CERT_FILE"}
    said = (line.partition("=")[::2] for line in pip.stdout.splitlines())
    found = {names[last]: value.strip("'") for key, value in said if (last := key.rpartition(".")[2]) in names}
    return {
        **os.environ,
        **{name: value for name, value in found.items() if name not in os.environ},
        "UV_CACHE_DIR": str(ROOT / ".cache" / "uv"),
        "UV_HTTP_TIMEOUT": "120",
        "UV_NO_CONFIG": "1",
        "MACOSX_DEPLOYMENT_TARGET": "13.0",
    }


def _resolve(lock: Path, platform: str, python: str, into: Path) -> subprocess.CompletedProcess[str]:
    command = [
        *(sys.executable, "-m", "uv", "pip", "install", "--dry-run", "--no-progress", "--color", "never"),
        *("--only-binary", ":all:", "--require-hashes", "--requirements", str(lock)),
        *("--python", sys.executable, "--python-platform", platform, "--python-version", python),
        *("--target", str(into)),
    ]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        env=_environment(),
        check=False,
        timeout=PATIENCE,
        stdin=subprocess.DEVNULL,
    )


def test_every_platform_installs_from_wheels_alone(tmp_path: Path) -> None:
    # The first one fills the cache that the others share.
    first = _resolve(LOCK, PLATFORMS[0], PYTHONS[0], tmp_path / "first")
    assert first.returncode == 0, first.stderr
    pairs = [(platform, python) for python in PYTHONS for platform in PLATFORMS][1:]
    with ThreadPoolExecutor(4) as pool:
        done = pool.map(lambda pair: _resolve(LOCK, *pair, tmp_path / "-".join(pair)), pairs)
    failed = {pair: result.stderr for pair, result in zip(pairs, done, strict=True) if result.returncode}

    assert not failed, json.dumps({" ".join(pair): text for pair, text in failed.items()}, indent=2)


def test_a_package_without_a_wheel_is_found(tmp_path: Path) -> None:
    """The check can fail: `nkeys` exists as source only, which is why Membridge does without it."""
    lock = tmp_path / "requirements.lock"
    lock.write_text(
        "nkeys==0.2.1 --hash=sha256:3a201dcd203d8bb05ba2884d441b2c92918b2a537a10d324e73738887dde9da3\n", "ascii"
    )

    refused = _resolve(lock, PLATFORMS[0], PYTHONS[0], tmp_path / "into")

    assert refused.returncode != 0
    assert "nkeys" in refused.stderr
