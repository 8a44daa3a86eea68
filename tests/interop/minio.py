"""A real MinIO server on the loopback interface, for as long as a test run needs it."""

import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.bench.s3 import KEY, S3, SECRET
from tests.fixtures.ports import free_ports
from tests.interop.fetch import MINIO, build

#: Seconds that MinIO may take to answer.
START_SECONDS = 60.0


@contextmanager
def start_minio(folder: Path) -> Generator[S3]:
    """Run MinIO with its data in `folder` and stop it afterwards."""
    port, console = free_ports(2)
    endpoint = f"http://127.0.0.1:{port}"
    command = [
        str(build(MINIO)), "server", str(folder / "data"), "--quiet", "--anonymous",
        "--address", f"127.0.0.1:{port}", "--console-address", f"127.0.0.1:{console}",
    ]  # fmt: skip
    environment = {
        "PATH": os.environ["PATH"], "HOME": str(folder), "MINIO_ROOT_USER": KEY, "MINIO_ROOT_PASSWORD": SECRET,
        # It asks no server whether a newer version exists, and serves no page.
        "MINIO_UPDATE": "off", "MINIO_BROWSER": "off",
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "minio.log"
    with ExitStack() as stack:
        output = stack.enter_context(log.open("wb"))
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
        stack.callback(process.wait)
        stack.callback(process.kill)
        _wait_until_healthy(endpoint, process, log)
        yield S3(endpoint)


def _wait_until_healthy(endpoint: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while True:
        try:
            with urllib.request.urlopen(f"{endpoint}/minio/health/live", timeout=2):  # noqa: S310  # http, loopback
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            pass  # not listening yet
        try:
            process.wait(0.05)
        except subprocess.TimeoutExpired:
            if time.monotonic() < end:
                continue
        raise RuntimeError(f"MinIO did not start:\n{log.read_text(encoding='utf-8', errors='replace')[-3000:]}")
