"""Object keys: sortable, and a commit's key gives its seq back."""

from hypothesis import given
from hypothesis import strategies as st

from membridge.commits import layout
from schemas.identity import NodeId, canonical_id
from schemas.snapshot import SnapshotKind

PROJECT = canonical_id("p")


@given(st.integers(0, 10**12 - 1), st.integers(0, 10**12 - 1))
def test_commit_keys_sort_as_their_seqs(one: int, other: int) -> None:
    assert (layout.commit(PROJECT, one) < layout.commit(PROJECT, other)) is (one < other)
    assert layout.seq_of_commit(layout.commit(PROJECT, one)) == one


def test_other_keys_have_no_seq() -> None:
    assert layout.seq_of_commit(layout.legacy_database(PROJECT)) is None
    assert layout.seq_of_commit("projects/x/commits/12.json") is None


def test_no_key_lies_below_another_one() -> None:
    # MinIO stores `a` and `a/b`, and lists `a` only.
    keys = {
        layout.commit(PROJECT, 1),
        layout.snapshot(PROJECT, 1, SnapshotKind.FULL, "n"),
        layout.pruned(PROJECT, 1),
        layout.tag(PROJECT, "proposals"),
        layout.proposal(PROJECT, NodeId("snapshots"), "p"),
        layout.legacy_database(PROJECT),
        layout.legacy_sum(PROJECT),
        layout.legacy_manifest(PROJECT),
    }
    assert [key for key in keys for other in keys if other.startswith(f"{key}/")] == []
    assert all(key.startswith(layout.project(PROJECT)) and "." in key.rpartition("/")[2] for key in keys)
