"""What `doctor` prints."""

from collections.abc import Callable

from membridge.cli import state
from schemas.node import (
    Check,
    DoctorReply,
    Finding,
)


def test_the_doctor_shows_remedies_for_what_is_not_ok(printed: Callable[[], list[str]]) -> None:
    state.print_checks(
        DoctorReply(
            checks=[
                Check(name="disk", finding=Finding.OK, detail="80 GB free", remedy="unneeded"),
                Check(name="nats", finding=Finding.FAIL, detail="nothing listens", remedy="start it"),
                Check(name="worker", finding=Finding.WARN, detail="not running"),
            ]
        )
    )

    lines = printed()
    assert lines[2:6] == [
        "OK    disk    80 GB free",
        "FAIL  nats    nothing listens",
        "              -> start it",
        "WARN  worker  not running",
    ]
    assert lines[-1] == "1 failure, 1 warning"


def test_what_was_not_looked_at_is_neither_well_nor_a_failure(printed: Callable[[], list[str]]) -> None:
    state.print_checks(
        DoctorReply(checks=[Check(name="clock", finding=Finding.SKIPPED, detail="not checked: NATS is away")])
    )

    lines = printed()
    assert lines[2] == "SKIPPED  clock  not checked: NATS is away"
    assert lines[-1] == "0 failures, 0 warnings, 1 not checked"
