"""The reference programs, measured in the same run: Litestream 0.5, and what claude-mem-minio did.

Each function works on a copy of the database of its own and returns numbers; nothing here judges them.
"""

import hashlib
import json
import os
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.bench.database import add_observations, new_random
from tests.bench.s3 import S3, uploaded

#: Observations of one push.
NEW = 10
#: Seconds that one run of a reference program may take.
TIMEOUT = 300
#: Where Litestream keeps first uploads and snapshots, under the replica's path.
LEVEL_0, SNAPSHOTS = "replica/0000/", "replica/0009/"


@dataclass(frozen=True, slots=True)
class Litestream:
    """Seconds and bytes of Litestream.

    From the start of its daemon to the first whole copy in the store, and to the snapshot that it makes of that. For
    the new observations `level_0_bytes` counts the first upload alone; compaction sends them again, more than once.
    """

    first_copy_seconds: float
    first_copy_bytes: int
    snapshot_seconds: float
    increment_seconds: float
    level_0_bytes: int
    restore_seconds: float


@dataclass(frozen=True, slots=True)
class WholeFile:
    """Seconds and bytes of one push that sends the whole database."""

    seconds: float
    uploaded_bytes: int


def litestream(original: Path, s3: S3, scratch: Path, *, prepare: Callable[[], None] = lambda: None) -> Litestream:
    """Replicate a copy of `original`: once in full, then ten new observations; restore it and compare.

    `prepare` runs before the daemon starts, and before it restores.

    The daemon runs beside an open connection, as beside a worker: without one SQLite removes the WAL and Litestream
    sends everything again. Times include `litestream sync -wait`, its way to ask until the replica has it all.
    """
    database, socket, restored = scratch / "litestream.db", scratch / "litestream.sock", scratch / "restored.db"
    shutil.copyfile(original, database)
    bucket = s3.make_bucket("litestream")
    config = scratch / "litestream.json"
    replica = {
        "type": "s3", "endpoint": s3.endpoint, "region": s3.region, "bucket": bucket, "path": "replica",
        "access-key-id": s3.access_key, "secret-access-key": s3.secret_key, "force-path-style": True,
    }  # fmt: skip
    document = {"dbs": [{"path": str(database), "replica": replica}], "socket": {"enabled": True, "path": str(socket)}}
    config.write_text(json.dumps(document), encoding="utf-8")
    sync = ("litestream", "sync", "-wait", "-timeout", str(TIMEOUT), "-socket", str(socket), str(database))

    with closing(sqlite3.connect(database)) as worker:
        worker.execute("SELECT count(*) FROM observations").fetchone()
        prepare()
        began = time.perf_counter()
        with _daemon("litestream", "replicate", "-config", str(config), until=socket, log=scratch / "litestream.log"):
            _run(*sync)
            first_copy = time.perf_counter() - began
            _wait_for_object(s3, bucket, SNAPSHOTS)
            snapshot = time.perf_counter() - began
            first = s3.sizes(bucket, LEVEL_0)
            add_observations(database, NEW, rng=new_random(2))
            increment = _run(*sync)
            second = s3.sizes(bucket, LEVEL_0)
    prepare()
    restore = _run("litestream", "restore", "-config", str(config), "-o", str(restored), str(database))
    assert count_observations(restored) == count_observations(database), "Litestream restored something else"
    return Litestream(
        first_copy_seconds=first_copy,
        first_copy_bytes=sum(first.values()),
        snapshot_seconds=snapshot,
        increment_seconds=increment,
        level_0_bytes=uploaded(first, second),
        restore_seconds=restore,
    )


def whole_file(original: Path, s3: S3, scratch: Path) -> WholeFile:
    """Push as claude-mem-minio did: copy, hash, put the file, its hash and a manifest."""
    database, copy = scratch / "old-tool.db", scratch / "old-tool-copy.db"
    shutil.copyfile(original, database)
    add_observations(database, NEW, rng=new_random(2))
    bucket = s3.make_bucket("old-tool")
    client = s3.client()
    began = time.perf_counter()
    with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    with copy.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    prefix = "projects/a1b2c3d4e5f60718/sqlite"
    with copy.open("rb") as file:
        client.put_object(Bucket=bucket, Key=f"{prefix}/claude-mem.db", Body=file)
    client.put_object(Bucket=bucket, Key=f"{prefix}/claude-mem.db.sha256", Body=digest.encode())
    manifest = json.dumps({"sha256": digest, "size": copy.stat().st_size}).encode()
    client.put_object(Bucket=bucket, Key=f"{prefix}/manifest.json", Body=manifest)
    seconds = time.perf_counter() - began
    return WholeFile(seconds, sum(s3.sizes(bucket).values()))


def count_observations(path: Path) -> int:
    """Return how many observations a database has, after SQLite's own quick check of it."""
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA quick_check").fetchone() == ("ok",)
        count: int = database.execute("SELECT count(*) FROM observations").fetchone()[0]
        return count


def _wait_for_object(s3: S3, bucket: str, prefix: str) -> None:
    """Wait until an object is there; S3 tells nobody, so this asks again and again."""
    end = time.monotonic() + TIMEOUT
    while not s3.sizes(bucket, prefix):
        if time.monotonic() > end:
            raise RuntimeError(f"there is no {prefix} in {bucket} after {TIMEOUT} s")


@contextmanager
def _daemon(*command: str, until: Path, log: Path) -> Generator[None]:
    """Run a program that serves once the file `until` is there, and end it afterwards."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=_environment(), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
        )
        try:
            end = time.monotonic() + TIMEOUT
            while not until.exists():
                with suppress(subprocess.TimeoutExpired):
                    process.wait(0.01)
                if process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(f"{command[0]} did not start:\n{log.read_text(encoding='utf-8')}")
            yield
        finally:
            process.terminate()
            process.wait(TIMEOUT)


def _run(*command: str) -> float:
    """Run a program to its end and return the seconds it took."""
    began = time.perf_counter()
    result = subprocess.run(
        command, env=_environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, encoding="utf-8",
        timeout=TIMEOUT, check=False,
    )  # fmt: skip
    if result.returncode:
        raise RuntimeError(f"{' '.join(command[:2])} failed ({result.returncode}):\n{result.stdout}{result.stderr}")
    return time.perf_counter() - began


def _environment() -> dict[str, str]:
    # Only what a program needs: the settings of this machine's own S3 tools are not the benchmark's business.
    return {"PATH": os.environ["PATH"], "HOME": os.devnull}
