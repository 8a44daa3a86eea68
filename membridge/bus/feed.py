"""Follow a stream: what it holds, then what comes; each message once, in order, from any sequence, through reconnects.

Live messages only signal that there is something to read. The content always comes from the stream, by sequence. So
history and live cannot overlap or leave a gap, nothing is buffered for a slow reader, and a reader resumes at the
position that it remembers. Messages that the stream dropped meanwhile are reported as a reset.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from membridge.aio.deadline import Deadline
from membridge.bus.connection import Bus
from membridge.bus.streams import history, span
from membridge.errors import MembridgeError
from schemas.errors import AGAIN
from schemas.streams import Stream

T = TypeVar("T")

#: Seconds between two reads without any news.
LOOK = 10.0
#: Seconds until the first read after news; each further pause is twice as long. News can arrive before its message is
#: stored.
SOON = 0.01
#: News that waits unread: more of it adds nothing.
NEWS = 64


@dataclass(frozen=True, slots=True)
class Position:
    """Where a reader is: the next sequence to read, in which life of the stream.

    A wiped store counts from one again, in another life. An empty life matches any.
    """

    seq: int = 1
    life: str = ""


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A part of the stream: items by sequence, the next position to read, and the first sequence that is kept."""

    items: list[tuple[int, T]]
    next: Position
    first: int
    more: bool


@dataclass(frozen=True, slots=True)
class News(Generic[T]):
    """New items, or none for now. `next` is where the reader would resume.

    `reset`: messages before these items may be gone from the stream. `trouble`: why it cannot be read at present.
    """

    items: list[tuple[int, T]]
    next: Position
    reset: bool = False
    trouble: MembridgeError | None = None

    @property
    def begins(self) -> int:
        """The sequence of the first item, or of the one that would come next."""
        return self.items[0][0] if self.items else self.next.seq


Read = Callable[[int], Awaitable[Page[T]]]


async def page_of(
    bus: Bus, stream: Stream, subject: str, *, start: int, most_bytes: int, deadline: Deadline
) -> Page[bytes]:
    """Return the bodies that a stream keeps under a subject from `start` on, of about `most_bytes` at most."""
    # Asked first: if the store is wiped afterwards, the next read shows it.
    kept = await span(bus, stream, deadline=deadline)
    found = await history(bus, stream, subject, start=start, most_bytes=most_bytes, deadline=deadline)
    last = found.entries[-1][0] + 1 if found.entries else start
    return Page(found.entries, Position(found.next_seq or last, kept.life), kept.first_seq, found.next_seq is not None)


async def follow(
    bus: Bus, subject: str, read: Read[T], *, start: Position | None = None, look: float = LOOK
) -> AsyncGenerator[News[T]]:
    """Yield what `read` gives from `start` on, then what comes on `subject`; empty news after `look` quiet seconds.

    A temporary failure is reported once as `trouble` and waited out; any other is raised.
    """
    at: Position = start or Position()
    nothing: list[tuple[int, T]] = []
    async with bus.subscribe(subject, bound=NEWS) as heard:
        pause, troubled = look, False
        while True:
            try:
                page = await read(at.seq)
            except MembridgeError as error:
                if error.mapping.retry not in AGAIN:
                    raise
                if not troubled:
                    yield News(nothing, at, trouble=error)
                troubled, pause = True, SOON if not troubled else pause
            else:
                recovered, troubled = troubled, False
                if at.life and page.next.life != at.life:
                    at = Position(1, page.next.life)
                    yield News(nothing, at, reset=True)
                    continue
                lost = bool(at.life) and page.first > at.seq
                at = replace(page.next, seq=max(page.next.seq, page.first)) if lost else page.next
                if page.items or lost or recovered or pause >= look:
                    yield News(page.items, at, reset=lost)
                if page.more:
                    continue
            pause = SOON if await heard.news_within(pause) else min(2 * pause, look)
