"""Who is let in by which invitation."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from membridge.access import members as rules
from membridge.access.members import Invitation, InvitationRefusedError, Membership
from membridge.errors import ConflictError, InvalidRequestError, NotFoundError
from schemas.access import EnrolRequest, InvitationState
from schemas.identity import NodeId, canonical_id
from schemas.wire import encode

P, Q = canonical_id("p"), canonical_id("q")
SECRET = "a-secret-of-a-certain-length"


def key(letter: str) -> str:
    return "U" + letter * 55


def opened(**changed: object) -> Membership:
    fields: dict[str, object] = {"id": "0" * 16, "digest": rules.digest_of(SECRET), "projects": [P]}
    return rules.invite(rules.add_projects(Membership(), ["p", "q"]), Invitation(**(fields | changed)))  # type: ignore[arg-type]


def request(**changed: object) -> EnrolRequest:
    fields: dict[str, object] = {"invitation": "0" * 16, "secret": SECRET, "node": "b", "keys": {P: key("B")}}
    return EnrolRequest(**(fields | changed))  # type: ignore[arg-type]


def test_an_invitation_lets_one_machine_in_once() -> None:
    after = rules.enrol(opened(), request(), now="now")
    assert [(member.node, member.keys) for member in after.enrolled()] == [("b", {P: key("B")})]
    with pytest.raises(InvitationRefusedError, match="used already"):
        rules.enrol(after, request(node="c", keys={P: key("C")}), now="now")


def test_a_request_whose_answer_was_lost_may_be_repeated_by_the_same_machine_only() -> None:
    after = rules.enrol(opened(), request(), now="now")
    assert rules.enrol(after, request(), now="later") is after
    with pytest.raises(InvitationRefusedError, match="used already"):
        rules.enrol(after, request(keys={P: key("C")}), now="later")
    with pytest.raises(InvitationRefusedError, match="used already"):
        rules.enrol(rules.revoke(after, NodeId("b"), now="later"), request(), now="later")


def test_a_revoked_invitation_lets_nobody_in_and_an_older_version_sees_an_expired_one() -> None:
    after = rules.revoke_invitation(opened(note="lost"), "0" * 16, by="someone", now="then")
    kept = after.invitations["0" * 16]
    assert (kept.state, kept.revoked_at, kept.revoked_by) == (InvitationState.EXPIRED, "then", "someone")
    assert (rules.shown(after, kept).state, rules.shown(after, kept).note) == (InvitationState.REVOKED, "lost")
    with pytest.raises(InvitationRefusedError, match="was revoked"):
        rules.enrol(after, request(), now="now")
    assert rules.revoke_invitation(after, "0" * 16, by="another", now="later") is after
    with pytest.raises(NotFoundError):
        rules.revoke_invitation(after, "1" * 16, by="someone", now="then")


def test_a_used_invitation_cannot_be_revoked() -> None:
    after = rules.enrol(opened(), request(), now="now")
    assert rules.shown(after, after.invitations["0" * 16]).used_at == "now"
    with pytest.raises(ConflictError, match="was used by node b") as refused:
        rules.revoke_invitation(after, "0" * 16, by="someone", now="later")
    assert refused.value.remedy == "cut that node off: `membridge nodes revoke b`"


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"secret": "another-secret-of-that-length"}, "does not know"),
        ({"invitation": "1" * 16}, "does not know"),
        ({"keys": {Q: key("B")}}, "other projects"),
        ({"keys": {P: key("B"), Q: key("C")}}, "other projects"),
    ],
)
def test_forged_and_altered_requests_are_refused(changed: dict[str, object], says: str) -> None:
    before = opened()
    with pytest.raises(InvitationRefusedError, match=says):
        rules.enrol(before, request(**changed), now="now")


def test_an_unknown_invitation_and_a_wrong_secret_look_the_same() -> None:
    messages: list[str] = []
    for changed in ({"secret": "another-secret-of-that-length"}, {"invitation": "1" * 16}):
        with pytest.raises(InvitationRefusedError) as refused:
            rules.enrol(opened(), request(**changed), now="now")
        messages.append(f"{refused.value.message} {refused.value.remedy}")
    assert messages[0] == messages[1]


def test_an_expired_invitation_lets_nobody_in() -> None:
    with pytest.raises(InvitationRefusedError, match="expired"):
        rules.enrol(rules.expire(opened(), ["0" * 16, "unheard of"]), request(), now="now")


def test_a_used_invitation_does_not_expire() -> None:
    after = rules.enrol(opened(), request(), now="now")
    assert rules.expire(after, ["0" * 16]).invitations["0" * 16].state is InvitationState.USED


def test_an_invitation_for_a_name_is_for_that_name() -> None:
    with pytest.raises(InvitationRefusedError, match="for node c") as refused:
        rules.enrol(opened(node=NodeId("c")), request(), now="now")
    assert "--node c" in refused.value.remedy


def test_a_name_that_is_taken_and_a_key_that_is_anothers_are_refused() -> None:
    hosted = rules.host(opened(), NodeId("b"), {P: key("A")}, key("R"), now="then")
    with pytest.raises(InvitationRefusedError, match="already a node b") as refused:
        rules.enrol(hosted, request(), now="now")
    assert "revoke b" in refused.value.remedy
    for taken in (request(node="c", keys={P: key("A")}), request(node="c", runtime_key=key("R"))):
        with pytest.raises(InvitationRefusedError, match="another member"):
            rules.enrol(hosted, taken, now="now")


def test_one_key_is_for_one_account() -> None:
    with pytest.raises(InvitationRefusedError, match="two accounts"):
        rules.enrol(opened(), request(keys={P: key("A")}, runtime_key=key("A")), now="now")
    (member,) = rules.enrol(opened(), request(keys={P: key("A")}, runtime_key=key("B")), now="now").enrolled()
    assert (member.keys, member.runtime_key) == ({P: key("A")}, key("B"))


def test_who_was_revoked_may_come_back_with_a_new_invitation_and_new_keys() -> None:
    revoked = rules.revoke(rules.enrol(opened(), request(), now="1"), NodeId("b"), now="2")
    assert revoked.enrolled() == []
    again = rules.invite(revoked, Invitation(id="2" * 16, digest=rules.digest_of(SECRET), projects=[P]))
    with pytest.raises(InvitationRefusedError, match="another member") as refused:
        rules.enrol(again, request(invitation="2" * 16), now="3")
    # The remedy: the keys of a join are those of its invitation.
    assert "a new invitation (`membridge invite`" in refused.value.remedy
    back = rules.enrol(again, request(invitation="2" * 16, keys={P: key("D")}), now="3")
    assert [member.enrolled_at for member in back.enrolled()] == ["3"]


def test_only_who_is_in_can_be_revoked() -> None:
    with pytest.raises(NotFoundError):
        rules.revoke(opened(), NodeId("b"), now="now")


def test_open_invitations_are_bounded_and_ended_ones_forgotten_at_last() -> None:
    membership = Membership()
    for number in range(rules.MOST_OPEN):
        membership = rules.invite(membership, Invitation(id=f"{number:016x}", digest="", projects=[P]))
    with pytest.raises(InvalidRequestError, match="64 invitations are open"):
        rules.invite(membership, Invitation(id="f" * 16, digest="", projects=[P]))
    for number in range(64, 64 + 2 * rules.MOST_REMEMBERED):
        membership = rules.expire(membership, list(membership.invitations))
        membership = rules.invite(membership, Invitation(id=f"{number:016x}", digest="", projects=[P]))
    assert len(membership.invitations) == rules.MOST_REMEMBERED + 1


def test_a_project_must_be_one_of_ours() -> None:
    assert rules.chosen(opened(), ["p"]) == [P]
    assert rules.chosen(opened(), []) == [P, Q]
    with pytest.raises(NotFoundError, match="'r'"):
        rules.chosen(opened(), ["r"])


def test_a_kept_roster_is_read_again_and_holds_no_secret() -> None:
    membership = rules.enrol(opened(), request(), now="now")
    body = encode(membership)
    assert rules.read(body) == membership
    assert SECRET.encode() not in body


@given(st.binary(max_size=200))
def test_what_is_no_roster_is_refused(body: bytes) -> None:
    try:
        rules.read(body)
    except InvalidRequestError:
        return
    assert body.lstrip().startswith(b"{")
