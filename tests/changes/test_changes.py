"""No change of a foreign writer is missed, and a mistake in the cheap way would be noticed here."""

from collections.abc import Callable

import pytest

from membridge.claudemem import btree, wal
from membridge.claudemem.btree import Range
from membridge.merge import row_index
from tests.changes.__main__ import run
from tests.changes.history import History, LookHistory, MissedRowError
from tests.changes.index_history import IndexHistory
from tests.changes.memory_history import MemoryHistory


@pytest.mark.parametrize(("kind", "rounds"), [(LookHistory, 200), (IndexHistory, 100), (MemoryHistory, 75)])
def test_what_changed_is_what_a_comparison_of_everything_finds(kind: type[History], rounds: int) -> None:
    ways = run(kind, rounds, seed=20_000)

    assert kind is not LookHistory or ways["cheap"] > rounds / 2
    assert kind is not MemoryHistory or ways["delta"] > 2


def _without_owners(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(btree, "_owner", lambda *_: 0)


def _without_an_old_tail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wal, "_across", lambda frames, _, now: {frame.page for frame in frames.frames(1, now.frames)})


def _without_what_was_deleted_before_a_leaf(monkeypatch: pytest.MonkeyPatch) -> None:
    descend = btree._descend

    def shortened(file: btree.File, root: int, rowid: int, wanted: int) -> Range | None:
        found = descend(file, root, rowid, wanted)
        return found and (rowid - 1, found[1])

    monkeypatch.setattr(btree, "_descend", shortened)


@pytest.mark.parametrize("mistake", [_without_owners, _without_an_old_tail, _without_what_was_deleted_before_a_leaf])
def test_a_mistake_of_the_look_is_found(
    monkeypatch: pytest.MonkeyPatch, mistake: Callable[[pytest.MonkeyPatch], None]
) -> None:
    mistake(monkeypatch)

    with pytest.raises(MissedRowError):
        run(LookHistory, 2_000, seed=1_000)


@pytest.mark.parametrize(("name", "answer"), [("_open_referrers", True), ("_difference", {})])
def test_a_mistake_of_the_index_is_found(monkeypatch: pytest.MonkeyPatch, name: str, answer: object) -> None:
    monkeypatch.setattr(row_index, name, lambda *_: answer)

    with pytest.raises(MissedRowError):
        run(IndexHistory, 1_000, seed=1_000)
