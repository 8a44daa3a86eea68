"""Instants: the only place that writes and reads ISO 8601 time stamps.

On the wire and on disk an instant is ISO 8601 with its offset from UTC; people read local time with its zone. A text
without an offset is rejected: it could be any of several instants.
"""

from datetime import UTC, datetime


def now() -> datetime:
    """Return the present instant by the wall clock."""
    return datetime.now(UTC)


def stamp(at: datetime | float | None = None) -> str:
    """Return an instant, seconds since 1970, or now as a stamp: UTC, to the millisecond."""
    when = datetime.fromtimestamp(at, UTC) if isinstance(at, int | float) else at or now()
    return when.astimezone(UTC).isoformat(timespec="milliseconds")


def parse(text: str) -> datetime:
    """Return the instant in an ISO 8601 text. Raises ValueError, also for one without an offset from UTC."""
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError(f"{text!r} lacks its offset from UTC")
    return at


def known(text: str | None) -> datetime | None:
    """Return the instant in `text`; None if it has none."""
    try:
        return parse(text or "")
    except ValueError:
        return None


def written(text: str) -> datetime:
    """Return the instant that a person wrote, with this machine's zone; one without an offset is local time.

    Raises ValueError.
    """
    try:
        return datetime.fromisoformat(text).astimezone()
    except OverflowError as error:
        raise ValueError(text) from error


def local(at: str, *, exact: bool = False) -> str:
    """Return the instant `at` as local time with its zone, `2026-01-31T18:00:05+01:00`; any other text unchanged.

    With `exact`, to the millisecond: for an instant that is then given to a command.
    """
    try:
        shown = parse(at).astimezone()
    except (ValueError, OverflowError):
        return at
    return shown.isoformat(timespec="milliseconds" if exact else "seconds")
