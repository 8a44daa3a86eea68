"""Who may say that a machine is revoked: the server's own users, and no member."""

import pytest

from membridge.access import permissions, runtime_permissions
from membridge.wiring.nats_permissions import EVERYTHING, Permissions
from schemas import subjects
from schemas.identity import NodeId, canonical_id

P, B = canonical_id("p"), NodeId("b")
MEMBERS = {
    "node": permissions.node(P, B),
    "reader": permissions.reader(P, "b"),
    "gateway": permissions.gateway(P, "b"),
    "node in the runtime": runtime_permissions.node(B, subjects.CLIENT_OPERATIONS),
    "reader in the runtime": runtime_permissions.reader("b", subjects.CLIENT_OPERATIONS),
    "gateway in the runtime": runtime_permissions.gateway("b", subjects.CLIENT_OPERATIONS),
    "door": permissions.enrolment_user("door"),
    "caller": permissions.caller("caller"),
}


def covers(allowed: str, subject: str) -> bool:
    """Whether a subject falls under one with wildcards."""
    given, asked = allowed.split("."), subject.split(".")
    if given[-1] == ">":
        given, asked = given[:-1], asked[: len(given) - 1]
    return len(given) == len(asked) and all(part in {"*", own} for part, own in zip(given, asked, strict=True))


@pytest.mark.parametrize("allowed", MEMBERS.values(), ids=MEMBERS)
@pytest.mark.parametrize("node", ["a", "b"])
def test_no_member_says_that_a_machine_is_revoked(allowed: Permissions, node: str) -> None:
    subject = subjects.REVOKED.at(node=node)
    assert not [allowed for allowed in allowed.publish if covers(allowed, subject)]
    assert any(covers(allowed, subject) for allowed in EVERYTHING.publish)


def test_a_node_hears_that_it_is_revoked_and_not_what_is_said_of_another() -> None:
    heard = MEMBERS["node"].subscribe
    assert subjects.REVOKED.at(node="b") in heard
    assert not [allowed for allowed in heard if covers(allowed, subjects.REVOKED.at(node="a"))]
