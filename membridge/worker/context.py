"""The context of a task: files, agents and recent memories that its hints name, within a budget.

The budget covers everything before the prompt: texts, the lines around them, and the notes about missing ones. Only the
project's folder, the agents' folder and the local claude-mem database are read. A hint that is rejected or matches
nothing becomes a note, never a failure.
"""

import os
import re
import stat
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from membridge.aio.deadline import Deadline
from membridge.claudemem.connection import open_live
from membridge.errors import MembridgeError

#: Characters that count as one token.
CHARACTERS = 4
#: Tokens of context when the task sets no budget.
BUDGET = 32_000
#: How many times its budget a context may take while it is collected.
MOST_COLLECTED = 4
#: Left-out pieces that a note names.
NAMED = 3
#: Files that one glob may match, and memories of `@memory/recent`.
MOST_FILES, MOST_MEMORIES = 200, 50
_AGENT = re.compile(r"@agent/([A-Za-z0-9_-]{1,64})\Z")
_MEMORY = "@memory/recent"
_GLOB = frozenset("*?[")


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of the context: its source and its text."""

    source: str
    text: str


@dataclass(frozen=True, slots=True)
class Context:
    """The pieces, oldest first, and notes about those that are missing."""

    pieces: tuple[Piece, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Sources:
    """Where context comes from: the project's folder, the user's agents, the local memory."""

    root: Path
    agents: Path | None = None
    database: Path | None = None


class _RefusedHintError(Exception):
    """A hint that is not allowed or matches nothing."""


def prepare(hints: Sequence[str], sources: Sources, *, budget: int, deadline: Deadline) -> Context:
    """Return the context of `hints`; the earliest pieces are dropped when all are more than `budget` tokens."""
    room = (budget or BUDGET) * CHARACTERS
    pieces, size = deque[Piece](), 0
    notes: list[str] = []
    dropped: list[str] = []
    for hint in hints:
        deadline.check("preparing the context")
        try:
            for piece in _pieces(hint, sources, room, deadline):
                pieces.append(piece)
                size += len(piece.text)
                while size > MOST_COLLECTED * room:
                    early = pieces.popleft()
                    size -= len(early.text)
                    dropped.append(early.source)
        except _RefusedHintError as refused:
            notes.append(f"{hint}: {refused}")
        except (OSError, MembridgeError) as error:
            notes.append(f"{hint}: {error}")
    return _within(list(pieces), notes, dropped, room)


def render(prompt: str, context: Context) -> str:
    """Return the program's input: the context, then the prompt."""
    blocks = [_block(piece) for piece in context.pieces]
    if context.notes:
        blocks.append(_remark(context.notes))
    return "\n\n".join([*blocks, prompt])


def _block(piece: Piece) -> str:
    return f'<context source="{piece.source}">\n{piece.text}\n</context>'


def _remark(notes: Sequence[str]) -> str:
    return "Not available: " + "; ".join(notes)


def _cost(block: str) -> int:
    """Return the characters of a block with the empty line behind it."""
    return len(block) + 2


def _within(pieces: list[Piece], notes: list[str], dropped: list[str], room: int) -> Context:
    kept: deque[Piece] = deque()
    left = room
    for piece in reversed(pieces):
        if _cost(_block(piece)) > left:
            dropped.append(piece.source)
        else:
            left -= _cost(_block(piece))
            kept.appendleft(piece)
    # Notes take half of the budget at most.
    told = _shortened([*notes, *_left_out(dropped)], room // 2)
    while told and kept and _cost(_remark(told)) > left:
        early = kept.popleft()
        left += _cost(_block(early))
        dropped.append(early.source)
        told = _shortened([*notes, *_left_out(dropped)], room // 2)
    return Context(tuple(kept), _shortened(told, left))


def _left_out(sources: list[str]) -> list[str]:
    """Return one note about the pieces that did not fit."""
    if not sources:
        return []
    more = f" and {len(sources) - NAMED} more" if len(sources) > NAMED else ""
    return [f"{', '.join(sources[:NAMED])}{more}: left out, the context is full"]


def _shortened(notes: Sequence[str], room: int) -> tuple[str, ...]:
    """Return the last notes, as many as fit: those say what was left out."""
    for hidden in range(len(notes)):
        shown = (f"{hidden} more hints", *notes[hidden:]) if hidden else tuple(notes)
        if _cost(_remark(shown)) <= room:
            return shown
    return ()


def _pieces(hint: str, sources: Sources, room: int, deadline: Deadline) -> Iterator[Piece]:
    if hint == _MEMORY:
        yield from _memories(sources, deadline)
    elif agent := _AGENT.match(hint):
        yield _agent(agent[1], sources, room)
    elif hint.startswith("@"):
        raise _RefusedHintError("there is no such source")
    else:
        yield from _files(hint, sources.root, room)


def _files(hint: str, root: Path, room: int) -> Iterator[Piece]:
    path = PurePosixPath(hint)
    if path.is_absolute() or ".." in path.parts or "\0" in hint or not path.parts:
        raise _RefusedHintError("only paths inside the project's folder are read")
    if not _GLOB & set(hint):
        yield Piece(hint, _read(root, root / path, room))
        return
    found = 0
    for match in sorted(root.glob(hint)):
        if found == MOST_FILES:
            break
        try:
            text = _read(root, match, room)
        except (_RefusedHintError, OSError):
            # Folders, and other things that the pattern matches by chance.
            continue
        found += 1
        yield Piece(match.relative_to(root).as_posix(), text)
    if not found:
        raise _RefusedHintError("matches no file")


def _read(root: Path, path: Path, room: int) -> str:
    """Return the text of a regular file inside `root` that fits; links that lead out are rejected."""
    try:
        real = path.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise _RefusedHintError("there is no such file") from error
    if not real.is_relative_to(root.resolve()):
        raise _RefusedHintError("it is a link out of the project's folder")
    # Open without following a link that was put there after the check.
    descriptor = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise _RefusedHintError("it is not a regular file")
        body = file.read(room + 1)
    if len(body) > room:
        raise _RefusedHintError("it is larger than the context's budget")
    return body.decode("utf-8", "replace")


def _agent(slug: str, sources: Sources, room: int) -> Piece:
    own = sources.root / ".claude" / "agents"
    for folder in (own, sources.agents):
        if folder is None or not (folder / f"{slug}.md").is_file():
            continue
        root = sources.root if folder is own else folder
        return Piece(f"@agent/{slug}", _read(root, folder / f"{slug}.md", room))
    raise _RefusedHintError("there is no such agent")


def _memories(sources: Sources, deadline: Deadline) -> Iterator[Piece]:
    if sources.database is None or not sources.database.exists():
        raise _RefusedHintError("there is no memory on this machine")
    with open_live(sources.database, deadline=deadline) as connection:
        rows = connection.rows(
            "SELECT title, narrative FROM observations ORDER BY created_at_epoch DESC LIMIT ?", (MOST_MEMORIES,)
        )
    # The newest comes last, because the first pieces are dropped first.
    for title, narrative in reversed(rows):
        yield Piece(_MEMORY, "\n".join(str(part) for part in (title, narrative) if part))
