"""Who asks: the header's word, and the inbox that the server keeps for one member."""

import pytest

from membridge.bus.caller import CALLER, UNNAMED, caller_of
from membridge.bus.message import Message


@pytest.mark.parametrize(
    ("claimed", "reply", "told"),
    [
        ("alice@b", "_INBOX.0123.4567", "alice@b"),
        ("", "_INBOX.0123.4567", UNNAMED),
        ("alice@b", "_INBOX.b.0123.4567", "alice@b"),
        ("alice@b", "_INBOX.c.0123.4567", "alice@b (c)"),
        ("", "_INBOX.c.0123.4567", "c"),
        (" \x1b[31m\n", "_INBOX.0123.4567", "[31m"),
        ("x" * 200, "", "x" * 128),
    ],
)
def test_a_request_is_by_its_header_and_the_member_whose_inbox_it_answers_to(
    claimed: str, reply: str, told: str
) -> None:
    assert caller_of(Message("s", reply, {CALLER: claimed})) == told
