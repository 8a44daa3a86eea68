"""No change of the real claude-mem worker is missed: a minute of it; `just changes` does more."""

import pytest

from tests.changes.__main__ import run
from tests.changes.history import History
from tests.changes.worker_history import WorkerIndexHistory, WorkerLookHistory

pytestmark = pytest.mark.real

#: Seconds of each, and more rounds than fit into them.
LONG, MANY = 30.0, 100_000


@pytest.mark.parametrize("kind", [WorkerLookHistory, WorkerIndexHistory], ids=["look", "index"])
def test_what_the_worker_changed_is_what_a_comparison_of_everything_finds(kind: type[History]) -> None:
    ways = run(kind, MANY, seed=31_000, seconds=LONG)

    assert ways["rounds"] > ways["written all the time"]
    assert kind is WorkerIndexHistory or ways["cheap"]
