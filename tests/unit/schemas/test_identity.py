"""Ids are parsed once, and none can widen what it addresses."""

import hashlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.identity import (
    TOKEN,
    InvalidTokenError,
    Sha256,
    WireNodeId,
    WireProjectId,
    canonical_id,
    node_id,
    node_id_of_host,
    project_id,
    token,
)

WIDENING = ["", ".", "a.b", "a b", "*", ">", "a*", "a>", "a\n", "a\t", "ä", "a/b", "a" * 65, "\x00"]


@given(st.text(min_size=1, max_size=256))
def test_a_canonical_id_is_sixteen_hex_digits_of_the_names_sha256(name: str) -> None:
    identity = canonical_id(name)

    assert identity == hashlib.sha256(name.encode()).hexdigest()[:16]
    assert project_id(identity) == identity
    assert token(identity) == identity


@pytest.mark.parametrize("name", ["", "x" * 257])
def test_a_project_name_has_a_bounded_length(name: str) -> None:
    with pytest.raises(InvalidTokenError, match="1 to 256"):
        canonical_id(name)


@pytest.mark.parametrize("text", ["", "A1B2C3D4E5F60718", "a1b2", "a1b2c3d4e5f60718\n", "g1b2c3d4e5f60718", "*" * 16])
def test_what_is_not_a_canonical_id_is_refused(text: str) -> None:
    with pytest.raises(InvalidTokenError, match="16 hex digits"):
        project_id(text)


@pytest.mark.parametrize("text", WIDENING)
def test_a_token_that_could_widen_a_subject_is_refused(text: str) -> None:
    with pytest.raises(InvalidTokenError, match="not allowed"):
        token(text)
    with pytest.raises(InvalidTokenError, match="node id"):
        node_id(text)


@given(st.text())
def test_a_token_is_kept_as_it_is_or_refused(text: str) -> None:
    try:
        kept = token(text)
    except InvalidTokenError:
        assert not TOKEN.fullmatch(text)
    else:
        assert kept == text


@given(st.text())
def test_every_host_name_gives_a_node_id(hostname: str) -> None:
    assert node_id(node_id_of_host(hostname)) == node_id_of_host(hostname)


def test_a_host_name_keeps_what_it_may() -> None:
    assert node_id_of_host("orange-pi.local") == "orange-pi-local"
    assert node_id_of_host("") == "node"


@pytest.mark.parametrize("text", WIDENING)
def test_the_wire_refuses_the_node_ids_that_the_constructor_refuses(text: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(text, WireNodeId)


@pytest.mark.parametrize("kind", [WireProjectId, Sha256], ids=["project", "sha256"])
@pytest.mark.parametrize("text", ["", "xyz", "a1b2c3d4e5f60718\n", "0" * 64 + "\n", "0" * 15, "0" * 65])
def test_the_wire_refuses_ids_of_another_form(kind: type[str], text: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(text, kind)
