"""The S3 server of a benchmark run, and what was uploaded to it: object sizes before and after."""

import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from tests.fixtures.ports import free_ports

KEY, SECRET = "benchmark", "benchmark-secret"
#: Seconds that a server may take to answer.
START_SECONDS = 60.0
#: Every listener of `weed mini`, each with a gRPC port beside it.
LISTENERS = ("master", "volume", "filer", "s3", "admin")
#: Each bucket takes a volume. Left alone, SeaweedFS allows one for each free GiB of the disk, and then refuses bodies.
VOLUMES = 2000


@dataclass(frozen=True, slots=True)
class S3:
    """A running S3 server: where it answers, and its keys."""

    endpoint: str
    access_key: str = KEY
    secret_key: str = SECRET
    region: str = "us-east-1"

    def client(self) -> Any:
        """Return a boto3 client of it."""
        config = Config(
            s3={"addressing_style": "path"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.access_key,
            aws_secret_access_key=self.secret_key,
            region_name=self.region,
            config=config,
        )

    def make_bucket(self, name: str) -> str:
        """Create a bucket and return its name."""
        self.client().create_bucket(Bucket=name)
        return name

    def sizes(self, bucket: str, prefix: str = "") -> dict[str, int]:
        """Return every object's size by its key."""
        pages = self.client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return {item["Key"]: item["Size"] for page in pages for item in page.get("Contents", [])}


def uploaded(before: dict[str, int], after: dict[str, int]) -> int:
    """Return the bytes of the objects that are new or of another size."""
    return sum(size for key, size in after.items() if before.get(key) != size)


@contextmanager
def start_s3(folder: Path) -> Generator[S3]:
    """Run SeaweedFS with its data in `folder` and stop it afterwards."""
    ports = free_ports(2 * len(LISTENERS))
    arguments = [
        f"-{name}{suffix}={ports.pop()}" for name in LISTENERS for suffix in (".port", ".port.grpc")
    ]  # fmt: skip
    command = [
        "weed", "mini", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-webdav=false", "-admin.ui=false",
        "-s3.port.iceberg=0", "-s3.port.lance=0",
        "-master.telemetry=false", f"-volume.max={VOLUMES}", *arguments,
    ]  # fmt: skip
    endpoint = "http://127.0.0.1:" + next(one for one in arguments if one.startswith("-s3.port=")).partition("=")[2]
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "AWS_ACCESS_KEY_ID": KEY}
    environment["AWS_SECRET_ACCESS_KEY"] = SECRET
    with running(command, environment, folder, f"{endpoint}/healthz"):
        yield S3(endpoint)


@contextmanager
def running(command: list[str], environment: Mapping[str, str], folder: Path, health: str) -> Generator[None]:
    """Run a server in `folder` during the body, from when it answers at the address `health`."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "server.log"
    with ExitStack() as stack:
        output = stack.enter_context(log.open("wb"))
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
        stack.callback(process.wait)
        stack.callback(process.kill)
        _wait_until_healthy(health, process, log)
        yield


def _wait_until_healthy(health: str, process: "subprocess.Popen[bytes]", log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while True:
        try:
            with urllib.request.urlopen(health, timeout=2):  # noqa: S310  # http, loopback
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            pass  # not listening yet
        try:
            process.wait(0.05)
        except subprocess.TimeoutExpired:
            if time.monotonic() < end:
                continue
        raise RuntimeError(f"{health} did not answer:\n{log.read_text(encoding='utf-8', errors='replace')[-3000:]}")
