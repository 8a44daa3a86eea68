"""A real MinIO server on the loopback interface, for as long as a test run needs it."""

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.s3 import KEY, S3, SECRET, running
from tests.fixtures.ports import free_ports
from tests.interop.fetch import MINIO, build


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
    with running(command, environment, folder, f"{endpoint}/minio/health/live"):
        yield S3(endpoint)
