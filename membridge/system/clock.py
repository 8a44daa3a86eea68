"""Instants as people read them: one form in pages, messages and reports.

On the wire and on disk an instant is ISO 8601 in UTC; what a person reads is local time with its zone.
"""

from datetime import UTC, datetime


def local(at: str, *, exact: bool = False) -> str:
    """Return the ISO 8601 instant `at` as local time with its zone, `2026-01-31T18:00:05+01:00`.

    With `exact`, to the millisecond: for an instant that a command takes. One without a zone is in UTC; what is no
    instant comes back as it is.
    """
    try:
        then = datetime.fromisoformat(at)
        shown = (then if then.tzinfo else then.replace(tzinfo=UTC)).astimezone()
    except (ValueError, OverflowError):
        return at
    return shown.isoformat(timespec="milliseconds" if exact else "seconds")
