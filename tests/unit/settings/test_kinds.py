"""What a value of a kind looks like to people."""

from pathlib import Path

import pytest

from membridge.settings.kinds import ENDPOINT, MASK, ORIGINS, PATH, SECRET, SERVERS, Secret, mask_userinfo, show


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


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("https://App.example", ("https://app.example",)),
        ("https://app.example:443, http://localhost:5173/", ("https://app.example", "http://localhost:5173")),
        ("http://[::1]:80", ("http://[::1]",)),
        ("https://app.example:80", ("https://app.example:80",)),
        (["https://a.example"], ("https://a.example",)),
    ],
)
def test_an_origin_is_kept_as_browsers_name_it(written: object, meant: tuple[str, ...]) -> None:
    assert ORIGINS.parse(written, Path("/")) == meant


@pytest.mark.parametrize(
    "written", ["*", "https://*,", "null", "app.example", "https://a.example/page", "", "file://x"]
)
def test_what_is_no_origin_is_refused(written: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the loader names the setting
        ORIGINS.parse(written, Path("/"))


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("board:9000", "http://board:9000"),
        ("HTTPS://Board.example/", "https://Board.example"),
        ("http://[::1]:9000", "http://[::1]:9000"),
        ("http://bücher.example.", "http://bücher.example."),
    ],
)
def test_an_address_is_kept_with_its_scheme_in_one_spelling(written: str, meant: str) -> None:
    assert ENDPOINT.parse(written, Path("/")) == meant


@pytest.mark.parametrize(
    "written",
    ["", "http://", "ftp://board", "http://user@board", "http://board/x", "http://board:0", "http://board:65536",
     "http://a..b", f"http://{'x' * 64}.example"],
)  # fmt: skip
def test_what_no_resolver_takes_is_no_address(written: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the loader names the setting
        ENDPOINT.parse(written, Path("/"))
