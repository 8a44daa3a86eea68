"""Files as documents: what is written is what was read, and an index of a memory is a list of entries."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from membridge.claudeconfig import documents
from membridge.claudeconfig.three_way import MISSING, Leaf, Map
from membridge.errors import InvalidRequestError

INDEX = "memory/h/o/n/MEMORY.md"
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=3), values, min_size=1, max_size=4))
def test_json_comes_back_as_it_was(value: dict[str, object]) -> None:
    leaf = documents.leaf_of("settings.json", documents.tree_of("settings.json", Leaf(json.dumps(value).encode())))

    assert leaf is not None
    assert json.loads(leaf.body) == value
    assert list(json.loads(leaf.body)) == list(value)


@given(st.lists(st.sampled_from(["- a", "- [b](b.md): c", "  more", "# Head", "", "text", "* [b](b.md)"]), max_size=12))
def test_an_index_comes_back_as_it_was(lines: list[str]) -> None:
    text = "".join(f"{line}\n" for line in lines)
    leaf = documents.leaf_of(INDEX, documents.tree_of(INDEX, Leaf(text.encode())))

    assert (leaf.body.decode() if leaf else "") == text


def test_an_entry_is_known_by_its_link_and_has_its_continuation() -> None:
    assert documents.entries("# Index\n- [A](a.md): one\n  and more\n- plain\n- [A](a.md) again\n") == {
        "# Index#1": "# Index",
        "a.md#1": "- [A](a.md): one\n  and more",
        "- plain#1": "- plain",
        "a.md#2": "- [A](a.md) again",
    }
    assert documents.joined(Leaf(b"- a"), Leaf(b"- b")) == Leaf(b"- a\n- b")


def test_numbers_and_booleans_are_not_taken_for_each_other() -> None:
    one, true = (documents.tree_of("settings.json", Leaf(body)) for body in (b'{"a": 1}', b'{"a": true}'))

    assert one != true


def test_other_files_are_whole() -> None:
    assert documents.tree_of("CLAUDE.md", Leaf(b"x")) == Leaf(b"x")
    assert documents.tree_of("CLAUDE.md", None) is MISSING
    assert documents.tree_of("keybindings.json", Leaf(b"[1]")) == Leaf(b"[1]")
    assert documents.leaf_of("settings.json", Map()) is None


@pytest.mark.parametrize("body", [b"{", b"\xff", b'{"a": Infinity}', b"[" * 200_000])
def test_broken_json_is_named(body: bytes) -> None:
    with pytest.raises(InvalidRequestError, match=r"keybindings\.json is not valid JSON"):
        documents.tree_of("keybindings.json", Leaf(body))
