"""Merging and copying while another process writes like the worker: nothing that either wrote is lost."""

from pathlib import Path

from membridge.claudemem import database
from membridge.claudemem.memory import memory_sum
from tests.fixtures.databases import grow, rows_of, stop_writing, titles, writing_process
from tests.integration.merge.machines import Machine, soon, sync


def test_a_merge_beside_a_writer_loses_nothing(tmp_path: Path) -> None:
    a, b = Machine.make("node-a", tmp_path), Machine.make("node-b", tmp_path)
    grow(a.live, 8)
    head = a.push()

    with writing_process(b.live, name="worker") as worker:
        report = b.pull(head, a.source)
        committed = stop_writing(worker)

    assert report.inserted > 1_000
    assert len(committed) > 1
    assert committed | titles(a.live) <= titles(b.live) | {"worker 0"}
    sync(a, b)
    assert memory_sum(a.live) == memory_sum(b.live)


def test_a_copy_beside_a_writer_is_consistent(tmp_path: Path) -> None:
    a = Machine.make("node-a", tmp_path)
    grow(a.live, 8)

    with writing_process(a.live, name="worker") as worker:
        for number in range(5):
            copy = tmp_path / f"copy {number}.db"
            database.backup(a.live, copy, deadline=soon())
            database.quick_check(copy, deadline=soon())
            orphans = "memory_session_id NOT IN (SELECT memory_session_id FROM sdk_sessions)"
            torn = rows_of(copy, f"SELECT 1 FROM observations WHERE {orphans}")
            assert torn == []
        committed = stop_writing(worker)

    assert len(committed) > 1
    assert committed <= titles(a.live)


def test_a_killed_merge_is_finished_by_the_next(tmp_path: Path) -> None:
    a, b = Machine.make("node-a", tmp_path), Machine.make("node-b", tmp_path)
    grow(a.live, 4)
    head = a.push()
    script = (
        "import os, sys; from pathlib import Path; from membridge.aio.deadline import Deadline\n"
        "from membridge.merge import snapshot; from membridge.merge.conflicts import Journal\n"
        "from membridge.merge.report import Source\n"
        "def die(done, total):\n    if done > 300: os.kill(os.getpid(), 9)\n"
        "live, head, journal = map(Path, sys.argv[1:])\n"
        "snapshot.merge_snapshot(live, base=None, theirs=head, source=Source('node-a', 'device-node-a'), "
        "journal=Journal(journal), deadline=Deadline.after(60), progress=die)\n"
    )
    import subprocess  # noqa: PLC0415 - of this test alone
    import sys  # noqa: PLC0415

    ended = subprocess.run(
        [sys.executable, "-c", script, b.live, head, tmp_path / "j.db"], cwd=Path(__file__).parents[3], check=False
    )
    half = len(titles(b.live))
    b.pull(head, a.source)

    assert ended.returncode == -9
    assert 0 < half < len(titles(a.live))
    assert memory_sum(a.live) == memory_sum(b.live)
