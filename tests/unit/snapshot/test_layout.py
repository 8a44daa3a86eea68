"""Object keys: sortable, and a commit's key gives its seq back."""

from hypothesis import given
from hypothesis import strategies as st

from membridge.snapshot import layout
from schemas.identity import canonical_id

PROJECT = canonical_id("p")


@given(st.integers(0, 10**12 - 1), st.integers(0, 10**12 - 1))
def test_commit_keys_sort_as_their_seqs(one: int, other: int) -> None:
    assert (layout.commit(PROJECT, one) < layout.commit(PROJECT, other)) is (one < other)
    assert layout.seq_of_commit(layout.commit(PROJECT, one)) == one


def test_other_keys_have_no_seq() -> None:
    assert layout.seq_of_commit(layout.legacy_database(PROJECT)) is None
    assert layout.seq_of_commit("projects/x/commits/12.json") is None
