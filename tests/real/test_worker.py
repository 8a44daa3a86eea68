"""The harness of the real worker: what the sync tests rely on."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.real import fetch as fetching
from tests.real.worker import start_worker

pytestmark = pytest.mark.real


def test_two_workers_keep_their_own_memories(tmp_path: Path) -> None:
    with start_worker(tmp_path / "a") as a, start_worker(tmp_path / "b") as b:
        a.save("the pump's valve was replaced in May", "boat")
        b.save("the anchor chain is 40 m long", "boat")
        b.save("green paint for the hull", "yard")

        assert a.texts("boat") == {"the pump's valve was replaced in May"}
        assert b.texts("boat") == {"the anchor chain is 40 m long"}
        assert b.texts("yard") == {"green paint for the hull"}
        assert [row["title"] for row in b.search("anchor", "boat")] == ["the anchor chain is 40 m long"]
        assert a.health()["version"] == "13.25.3"


def test_memories_are_read_past_the_first_page(tmp_path: Path) -> None:
    texts = {f"memory number {n}" for n in range(103)}
    with start_worker(tmp_path) as worker:
        for text in texts:
            worker.save(text, "p")

        assert worker.texts("p") == texts


def test_the_running_worker_writes_a_wal_database_that_others_can_read(tmp_path: Path) -> None:
    with start_worker(tmp_path) as worker:
        worker.save("first", "p")
        with closing(sqlite3.connect(f"file:{worker.database}?mode=ro", uri=True)) as database:
            mode = database.execute("PRAGMA journal_mode").fetchone()[0]
            rows = database.execute("SELECT narrative FROM observations").fetchall()

    assert (mode, rows) == ("wal", [("first",)])


def test_a_stopped_worker_leaves_its_memory_to_the_next(tmp_path: Path) -> None:
    with start_worker(tmp_path) as worker:
        worker.save("kept", "p")
        worker.stop()
        assert worker.process.poll() is not None
    with start_worker(tmp_path) as worker:
        assert worker.texts("p") == {"kept"}


def test_a_killed_worker_loses_nothing_it_had_answered(tmp_path: Path) -> None:
    with start_worker(tmp_path) as worker:
        worker.save("answered", "p")
        worker.kill()
    with start_worker(tmp_path) as worker:
        assert worker.texts("p") == {"answered"}


def test_a_tarball_with_other_bytes_is_refused(tmp_path: Path) -> None:
    package = fetching.packages()[2]
    tarball = tmp_path / "zod.tgz"
    tarball.write_bytes(b"not the package")

    with pytest.raises(fetching.FetchError, match=r"zod@.* is not the tarball"):
        fetching._verify(package, tarball)


def test_a_registry_that_lacks_a_package_is_a_clear_failure(tmp_path: Path) -> None:
    package = fetching.Package("zod", "0.0.0-never-released", "", "zod")

    with pytest.raises(fetching.FetchError, match="registry did not supply zod@0"):
        fetching._pack(package, tmp_path)
