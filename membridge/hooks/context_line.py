"""The line that a session start adds to the session's context: how fresh the memory is, from which machine, or why not.

Pure, but for the time zone of this machine.
"""

from dataclasses import dataclass

from membridge.system import clock
from schemas.snapshot import SnapshotRecord
from schemas.wire import shortened

#: Characters of a reason, and of a title.
REASON, TITLE = 240, 100
#: Titles that a session without claude-mem's own context gets.
TITLES = 10


@dataclass(frozen=True, slots=True)
class Freshness:
    """What a machine has of a project's memory: its `seq`, and the `record` of that snapshot if it is known.

    `problem` says why newer memory may be missing; it is empty if none is.
    """

    project: str
    seq: int = 0
    record: SnapshotRecord | None = None
    problem: str = ""


def line_of(freshness: Freshness) -> str:
    """Return the line."""
    has = _has(freshness)
    if freshness.problem:
        reason = shortened(" ".join(freshness.problem.split()), REASON).rstrip(".")
        return f"Membridge: this memory may be out of date: {reason}. {has}"
    if not freshness.seq:
        return f"Membridge: no machine has shared a memory of {_quoted(freshness.project)} yet."
    return f"Membridge: this memory is up to date. {has}"


def with_titles(line: str, titles: list[str]) -> str:
    """Return the line, then the newest titles, if there are any."""
    if not titles:
        return line
    listed = "\n".join(f"- {shortened(' '.join(title.split()), TITLE)}" for title in titles[:TITLES])
    return f"{line}\nNewest memories of this project:\n{listed}"


def _has(freshness: Freshness) -> str:
    record = freshness.record
    if record is not None and record.seq == freshness.seq:
        return f"It is snapshot {record.seq} of {clock.local(record.created_at)} from {record.node}."
    if freshness.seq:
        return f"It is snapshot {freshness.seq}."
    return "This machine has not received a snapshot yet."


def _quoted(name: str) -> str:
    return f'"{shortened(" ".join(name.split()), TITLE)}"'
