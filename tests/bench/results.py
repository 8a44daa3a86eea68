"""What one run measures of Membridge, and what it measures with.

`tests.bench.ours` has one function, `measure(scene) -> Ours`; the table puts its numbers beside the references'.
"""

from dataclasses import dataclass
from pathlib import Path

from tests.bench.s3 import S3


@dataclass(frozen=True, slots=True)
class Scene:
    """What a measurement starts from: an empty S3, a database to copy (never to change), a folder for its files."""

    s3: S3
    original: Path
    scratch: Path


@dataclass(frozen=True, slots=True)
class Ours:
    """Membridge's numbers: seconds, and bytes of all objects that a push uploaded."""

    #: A push after `peers.NEW` new observations, mirror and connections in place: the daemon's own push.
    push_seconds: float
    push_bytes: int
    #: The first push of the whole database, and the first pull on a machine that has nothing.
    full_push_seconds: float
    full_push_bytes: int
    cold_pull_seconds: float
    #: Another node takes the ten observations into its live database: download, verification, merge.
    delta_pull_seconds: float
    #: From the commit of a row in A's database to its being readable in B's, quiet time included.
    commit_to_row_seconds: float
    #: Resident bytes of an idle daemon, fresh and after ten pushes to S3.
    idle_rss_bytes: int
    idle_rss_after_pushes_bytes: int
    #: The same lanes with every object encrypted before it leaves the node.
    sealed_push_seconds: float
    sealed_push_bytes: int
    sealed_full_push_seconds: float
    sealed_cold_pull_seconds: float
    sealed_delta_pull_seconds: float
