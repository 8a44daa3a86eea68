"""Buckets: one declaration each, every one bounded, none that lets an expired value's elder come back."""

import pytest

from schemas import buckets
from schemas.buckets import Bucket
from schemas.claude_config import CLAUDE_CONFIG
from schemas.identity import token
from schemas.wire import Wire

ALL = pytest.mark.parametrize("bucket", [*buckets.ALL, CLAUDE_CONFIG], ids=lambda bucket: bucket.name)


def test_every_declared_bucket_is_in_the_list_once() -> None:
    declared = [value for value in vars(buckets).values() if isinstance(value, Bucket)]

    listed = [*buckets.ALL, *buckets.RUNTIME, *buckets.WEB, *buckets.GATEWAY]
    assert sorted(bucket.name for bucket in listed) == sorted(bucket.name for bucket in declared)
    assert len({bucket.name for bucket in listed}) == len(listed)


@ALL
def test_a_bucket_is_bounded_and_its_values_are_wire_structs(bucket: Bucket[Wire]) -> None:
    assert token(bucket.name) == bucket.name
    assert issubclass(bucket.value, Wire)
    assert 0 < bucket.max_bytes <= 64 << 20
    assert 1 <= bucket.history <= 64


@ALL
def test_a_bucket_with_a_ttl_keeps_one_revision(bucket: Bucket[Wire]) -> None:
    # With more history an expired newer revision lets an older one come back (ADR-48).
    if bucket.ttl is not None:
        assert bucket.history == 1
        assert bucket.ttl >= 1
