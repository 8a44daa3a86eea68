"""The line that a machine joins with."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from membridge.access import invitation
from membridge.access.invitation import Line
from membridge.errors import InvalidRequestError

LINE = Line(
    urls=["tls://10.0.0.5:4222", "tls://board:4222"],
    fingerprint="ab" * 32,
    id="0123456789abcdef",
    secret="s" * 22,
    door="SU" + "A" * 56,
    projects=["my memory", "ü"],
    node=None,
)


def test_a_line_says_what_was_written_and_has_no_break() -> None:
    text = invitation.write(LINE)
    assert text.split() == [text]
    assert invitation.parse(text) == LINE


def test_breaks_that_a_terminal_put_in_are_taken_out() -> None:
    text = invitation.write(LINE)
    assert invitation.parse(f"  {text[:70]}\n{text[70:]}\r\n") == LINE


@given(st.data())
def test_a_damaged_line_is_refused(data: st.DataObject) -> None:
    text = invitation.write(LINE)
    at = data.draw(st.integers(len(invitation.PREFIX), len(text) - 1))
    other = data.draw(st.sampled_from([letter for letter in "Aa0-_" if letter != text[at]]))
    damaged = text[:at] + other + text[at + 1 :]
    # The last letter may hold bits that mean nothing.
    if at < len(text) - 1:
        with pytest.raises(InvalidRequestError, match="damaged"):
            invitation.parse(damaged)
    with pytest.raises(InvalidRequestError):
        invitation.parse(text[:at])


@given(st.text(max_size=200))
def test_anything_else_is_no_invitation(text: str) -> None:
    with pytest.raises(InvalidRequestError):
        invitation.parse(text)
    with pytest.raises(InvalidRequestError):
        invitation.parse(invitation.PREFIX + text)
