"""Text for people: sizes, durations, times, counts, and foreign text without control characters.

Plain functions; the clock is an argument.
"""

import re
from datetime import datetime, timedelta

from membridge.system import clock

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
#: The seconds of an ISO 8601 time, and their fraction of up to six digits.
_SECOND = re.compile(r"\d\d:\d\d:\d\d(?:[.,](\d{1,6}))?")
_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86_400.0


def size(count: int) -> str:
    """Return a number of bytes, decimal: `88.1 KB`."""
    if count < 1000:
        return f"{count} B"
    value = count / 1000
    for unit in ("KB", "MB"):
        if value < 999.95:
            return f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"


def duration(seconds: float) -> str:
    """Return a duration: `0.4 s`, `3 min`, `2 h`, `5 days`."""
    if seconds < _MINUTE:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    if seconds < _HOUR:
        return f"{seconds / _MINUTE:.0f} min"
    if seconds < 2 * _DAY:
        return f"{seconds / _HOUR:.0f} h"
    return f"{seconds / _DAY:.0f} days"


def ago(at: str, now: datetime) -> str:
    """Return how long ago the ISO 8601 instant `at` was; other text comes back as it is."""
    then = clock.known(at)
    if then is None:
        return at
    seconds = (now - then).total_seconds()
    if seconds < 1:
        return "now" if seconds > -_MINUTE else f"in {duration(-seconds)}"
    return f"{duration(float(int(seconds))) if seconds >= 10 else f'{seconds:.0f} s'} ago"


def when(at: str, *, exact: bool = False) -> str:
    """Return the instant `at` as all pages show one; see `clock.local`."""
    return clock.local(at, exact=exact)


def given(text: str) -> str:
    """Return the instant that a person wrote as ISO 8601 with its zone; one without a zone is local.

    Raises ValueError for other text.
    """
    return clock.written(text).isoformat()


def given_as_state(text: str) -> str:
    """Return the same as the name of a state: the memory at the end of the second, or millisecond, that was written.

    So a time that `history` showed, cut to milliseconds, names that snapshot. Raises ValueError.
    """
    at, second = clock.written(text), _SECOND.search(text)
    if second is not None:
        at += timedelta(microseconds=10 ** (6 - len(second[1] or "")) - 1)
    return f"@{at.isoformat()}"


def took(started: str, ended: str | None) -> str:
    """Return the time between two ISO 8601 instants, nothing while there is no end."""
    begin, end = clock.known(started), clock.known(ended)
    return duration((end - begin).total_seconds()) if begin is not None and end is not None else ""


def count(number: int, noun: str) -> str:
    """Return `number` of `noun`: `1 row`, `1,234 rows`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def printable(text: str) -> str:
    """Return `text` with each control character but tab and line feed as `?`; it may come from another machine."""
    return _CONTROL.sub("?", text)
