"""What `push` and `pull` say they did."""

import pytest

from membridge.cli.lane import describe_pull, describe_push
from schemas.snapshot import PullOutcome, PullReply, PushOutcome, PushReply, SnapshotKind


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (
            PushReply(
                outcome=PushOutcome.COMMITTED,
                seq=12,
                kind=SnapshotKind.DELTA,
                rows=34,
                uploaded_bytes=88_123,
                seconds=0.4,
            ),
            "committed snapshot 12 (delta, 34 rows, 88.1 KB in 0.4 s)",
        ),
        (
            PushReply(outcome=PushOutcome.PROPOSED, rows=1, uploaded_bytes=900, seconds=0.1),
            "proposed 1 row to the primary (900 B in 0.1 s)",
        ),
        (PushReply(outcome=PushOutcome.UNCHANGED), "nothing to push: every row is shared or proposed already"),
        (PushReply(outcome=PushOutcome.UNCHANGED, seq=12), "nothing to push: snapshot 12 has every row"),
        (PushReply(outcome=PushOutcome.DRY_RUN, rows=2), "dry run: 2 rows would be sent, nothing was"),
    ],
)
def test_a_push_is_told_in_a_sentence(reply: PushReply, text: str) -> None:
    assert describe_push(reply) == text


def test_a_pull_tells_what_is_left_to_look_at() -> None:
    reply = PullReply(
        outcome=PullOutcome.MERGED, seq=7, inserted=10, deleted=1, conflicts=1, unsynced=2, downloaded_bytes=5000,
        backup="/b/x.db", seconds=0.3,
    )  # fmt: skip

    assert describe_pull(reply).splitlines() == [
        "merged snapshot 7: 10 inserted, 1 deleted (5.0 KB in 0.3 s)",
        "1 conflict: see `membridge conflicts`",
        "2 rows of this machine not yet in the shared memory",
        "backup: x",
    ]


@pytest.mark.parametrize("outcome", PullOutcome)
def test_every_outcome_of_a_pull_has_its_sentence(outcome: PullOutcome) -> None:
    assert describe_pull(PullReply(outcome=outcome, seq=7))
