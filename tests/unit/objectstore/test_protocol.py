"""Keys, prefixes and bodies are confined before any store sees them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from membridge.errors import InvalidRequestError, TooLargeError
from membridge.objectstore.protocol import MAX_GET_BYTES, MAX_KEY, checked_body, checked_key, checked_prefix

BAD = ["", "/", "a/", "/a", "a//b", ".", "..", "a/..", "a/./b", "a\n", "a b", "a\\b", "a?b", "é", "x" * (MAX_KEY + 1)]


@pytest.mark.parametrize("key", ["a", "a/b.c-d_e", ".hidden", "a/...", "x" * MAX_KEY])
def test_an_ordinary_key_is_returned_as_it_is(key: str) -> None:
    assert checked_key(key) == key


@pytest.mark.parametrize("key", BAD)
def test_a_key_that_is_no_plain_path_is_refused_by_name(key: str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        checked_key(key)
    assert refused.value.field == "key"
    assert "\n" not in refused.value.message


@pytest.mark.parametrize("prefix", ["", "a", "a/", "a/b", "projects/x/"])
def test_a_prefix_may_be_empty_and_may_end_anywhere(prefix: str) -> None:
    assert checked_prefix(prefix) == prefix


@pytest.mark.parametrize("prefix", ["/", "/a", "a//", "..", "../", "a/../b", "a\n", "*", "x" * (MAX_KEY + 1)])
def test_a_prefix_that_could_leave_its_place_is_refused(prefix: str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        checked_prefix(prefix)
    assert refused.value.field == "prefix"


@given(st.text(max_size=40))
def test_whatever_is_asked_a_key_that_passes_stays_below_its_root(key: str) -> None:
    try:
        passed = checked_key(key)
    except InvalidRequestError:
        return
    parts = passed.split("/")
    assert passed.isascii()
    assert all(parts)
    assert not {".", ".."} & set(parts)


def test_a_body_of_one_byte_too_many_is_refused() -> None:
    assert checked_body("k", bytes(MAX_GET_BYTES)) == bytes(MAX_GET_BYTES)
    with pytest.raises(TooLargeError, match="object k"):
        checked_body("k", bytes(MAX_GET_BYTES + 1))
