"""The database that everything is measured on: written by a real worker, grown with observations of like text.

Written through apsw: in a process with a lasting lane Python's own `sqlite3` must not open a live database.
"""

import random
import shutil
from contextlib import closing
from pathlib import Path

import apsw

SAMPLE = Path(__file__).parents[1] / "data" / "claude-mem-13.25.3.db"
MEGABYTE = 1 << 20
#: Observations of one transaction while growing.
BATCH = 500


def grow(path: Path, megabytes: int, *, seed: int = 1) -> None:
    """Write a claude-mem database of at least `megabytes` MiB to `path`, the same for the same seed."""
    shutil.copyfile(SAMPLE, path)
    rng = new_random(seed)
    with closing(_open(path)) as database:
        while _size(database) < megabytes * MEGABYTE:
            add_observations(path, BATCH, rng=rng, database=database)
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def new_random(seed: int) -> random.Random:
    """Return the generator that a series of insertions draws from."""
    return random.Random(seed)  # repeatable text, no secret


def add_observations(path: Path, count: int, *, rng: random.Random, database: apsw.Connection | None = None) -> None:
    """Insert `count` observations as the worker does, each like one of the sample but of shuffled words.

    On a connection of its own each is a transaction, as the worker's are; on a given one all are one.
    """
    if database is not None:
        with database:
            _insert(database, count, rng)
        return
    with closing(_open(path)) as own:
        for _ in range(count):
            with own:
                _insert(own, 1, rng)


def _insert(database: apsw.Connection, count: int, rng: random.Random) -> None:
    columns = [row[1] for row in database.execute("PRAGMA table_info(observations)") if row[1] != "id"]
    names = ", ".join(columns)
    patterns = database.execute(f"SELECT {names} FROM observations WHERE id <= 320 ORDER BY id").fetchall()
    now = database.execute("SELECT max(created_at_epoch) FROM observations").fetchone()[0]
    rows: list[list[object]] = []
    for number in range(count):
        row = dict(zip(columns, rng.choice(patterns), strict=True))
        for column in ("title", "subtitle", "narrative"):
            words = str(row[column] or "").split()
            rng.shuffle(words)
            row[column] = " ".join(words)
        row |= {"created_at_epoch": now + number + 1, "content_hash": f"{rng.getrandbits(64):016x}"}
        rows.append(list(row.values()))
    database.executemany(f"INSERT INTO observations ({names}) VALUES ({', '.join('?' * len(columns))})", rows)


def _open(path: Path) -> apsw.Connection:
    database = apsw.Connection(str(path))
    database.set_busy_timeout(10_000)
    database.execute("PRAGMA journal_mode = wal")
    database.execute("PRAGMA synchronous = normal")
    return database


def _size(database: apsw.Connection) -> int:
    pages: int = database.execute("PRAGMA page_count").fetchone()[0]
    size: int = database.execute("PRAGMA page_size").fetchone()[0]
    return pages * size
