"""What `leader` prints."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from membridge.cli import leader, units
from schemas.identity import NodeId, canonical_id
from schemas.leadership import LeaderRecord, LeadershipReply

PROJECT = canonical_id("claude-mem")
PI, LAPTOP = NodeId("raspberrypi-4"), NodeId("laptop")


def before(seconds: float) -> str:
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()


def test_leadership_without_a_primary_says_what_to_do(printed: Callable[[], list[str]]) -> None:
    leader.print_leadership(LeadershipReply(needs_ui_selection=True))

    assert printed() == [
        "primary  none: no node is primary",
        "policy   manual",
        "to do    choose one: `membridge leader select NODE`",
    ]


def test_leadership_shows_the_primary(printed: Callable[[], list[str]]) -> None:
    record = LeaderRecord(
        primary_node_id=PI, epoch=3, issued_at=before(500), expires_at=before(-20), lease_seconds=30, issued_by="me"
    )

    leader.print_leadership(LeadershipReply(leader=record))

    assert printed()[:4] == [
        "primary    raspberrypi-4",
        "epoch      3",
        f"since      {units.when(record.issued_at)}",
        "lease      30 s",
    ]
