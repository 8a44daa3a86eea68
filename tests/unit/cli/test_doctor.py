"""What `doctor` prints."""

from collections.abc import Callable

from membridge.cli import doctor
from membridge.errors import BusUnavailableError
from schemas.node import (
    Check,
    DoctorReply,
    Finding,
)


def test_the_doctor_shows_remedies_for_what_is_not_ok(printed: Callable[[], list[str]]) -> None:
    doctor.print_checks(
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


def test_without_nats_the_doctor_still_tells_of_the_settings() -> None:
    error = BusUnavailableError("nothing listens", remedy="start it")

    reply = doctor.without_nats(error, ["a file can be read by others"])

    assert [(check.name, check.finding, check.remedy) for check in reply.checks] == [
        ("settings", Finding.WARN, ""),
        ("nats", Finding.FAIL, "start it"),
    ]
