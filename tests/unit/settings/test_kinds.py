"""What a value of a kind looks like to people."""

from pathlib import Path

import pytest

from membridge.settings.kinds import MASK, PATH, SECRET, SERVERS, Secret, mask_userinfo, show


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("nats://user:pass@host:4222", "nats://***@host:4222"),
        ("nats://user:p@ss/word@host", "nats://***@host"),
        ("nats://a:b@h,nats://c:d@i", "nats://***@h,nats://***@i"),
        ("nats://host:4222", "nats://host:4222"),
        ("mail me@home", "mail me@home"),
    ],
)
def test_a_user_and_password_in_an_address_are_masked(text: str, masked: str) -> None:
    assert mask_userinfo(text) == masked


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""), (True, "true"), (5.0, "5"), (0.25, "0.25"), (("a", "nats://u:p@b"), "a, nats://***@b"),
        (Secret("s"), MASK), (Path("/x"), "/x"),
    ],
)  # fmt: skip
def test_a_value_as_people_read_it(value: object, text: str) -> None:
    assert show(value) == text


def test_a_wrong_value_is_quoted_short_and_without_secrets() -> None:
    assert PATH.quote("me@home\n") == "'me@home\\n'"
    assert len(PATH.quote("x" * 10_000)) < 100
    assert SECRET.quote("hunter2\n") == MASK
    assert SERVERS.quote("u:hunter2@host") == "'***@host'"
