"""The error table covers every code, and says what the design says."""

import pytest

from schemas.errors import TABLE, ErrorCode, Retry


def test_the_table_covers_every_code_and_nothing_else() -> None:
    assert set(TABLE) == set(ErrorCode)


@pytest.mark.parametrize("code", ErrorCode)
def test_every_code_leaves_the_process_as_an_error(code: ErrorCode) -> None:
    mapping = TABLE[code]

    assert 400 <= mapping.nats < 600
    assert 400 <= mapping.http < 600
    assert mapping.exit in {1, 2, 3}
    assert isinstance(mapping.retry, Retry)
    assert mapping.log_level in {"debug", "info", "warning", "error"}


def test_the_old_tools_exit_codes_mean_what_they_meant() -> None:
    special = {code: mapping.exit for code, mapping in TABLE.items() if mapping.exit != 1}

    assert special == {ErrorCode.PRIMARY_PULL_REFUSED: 2, ErrorCode.SECONDARY_PUSH_BLOCKED: 3}


def test_what_is_unavailable_may_be_tried_again_and_what_is_wrong_may_not() -> None:
    assert TABLE[ErrorCode.UNAVAILABLE].retry is Retry.YES
    assert TABLE[ErrorCode.DEADLINE_EXCEEDED].retry is Retry.IF_IDEMPOTENT
    assert TABLE[ErrorCode.HEAD_MOVED].retry is Retry.AFTER_REREAD
    assert {TABLE[code].retry for code in ErrorCode if TABLE[code].http in {400, 401, 403, 413, 422}} == {Retry.NO}
    # What is missing may be there when it is looked for again; who holds a lease gives it back.
    assert TABLE[ErrorCode.NOT_FOUND].retry is Retry.AFTER_REREAD
    assert TABLE[ErrorCode.LEASE_LOST].retry is Retry.AFTER_REREAD
    assert TABLE[ErrorCode.LEASE_HELD].retry is Retry.LATER
