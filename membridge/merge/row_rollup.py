"""Rollups: several deltas that follow each other as one delta, with what they change together.

Pure. A row that came and went in between is not in it, so that nothing deleted travels in a rollup for longer than in
the deltas. A row that went and came back goes and comes in it too, because what is carried along may be another.
"""

from collections.abc import Iterable, Iterator, Mapping

from membridge.claudemem import canonical
from membridge.merge.memory_file import digest_of
from membridge.merge.row_stream import Link, MalformedStreamError, Message, Origin, Schema, Sent, Tail, Went

#: A row by its table and sum.
_Row = tuple[str, bytes]


def join(deltas: Iterable[Iterable[Message]]) -> Iterator[Message]:
    """Yield the delta that changes what all of `deltas` change, which are given oldest first.

    Holds the rows of the result in memory. Raises MalformedStreamError for deltas that do not follow each other, or
    whose rows do not add up.
    """
    joined = _Joined()
    for messages in deltas:
        for message in messages:
            joined.take(message)
    return joined.messages()


def check(messages: Iterable[Message], before: str, after: str) -> None:
    """Raise MalformedStreamError for a delta that does not lead from the state `before` to the state `after`.

    Only sums are added up, so that neither state has to be there.
    """
    sums, result = dict[str, int](), dict[str, bytes]()
    for message in messages:
        if isinstance(message, Link):
            if digest_of(message.sums) != before:
                raise MalformedStreamError("it was made for another state")
            sums = {name: int.from_bytes(total, "big") for name, total in message.sums.items()}
        elif isinstance(message, Went):
            sums[message.table] = sums.get(message.table, 0) - int.from_bytes(message.sum, "big")
        elif isinstance(message, Sent):
            sums[message.table] = sums.get(message.table, 0) + canonical.row_sum(message.canonical)
        else:
            result = message.sums
    _check_sums(sums, result)
    if digest_of(result) != after:
        raise MalformedStreamError("it leads to another state")


class _Joined:
    """What the deltas that were taken in so far change together."""

    def __init__(self) -> None:
        self._link: Link | None = None
        self._tail: Tail | None = None
        self._schema: Schema | None = None
        self._tables: dict[str, Origin] = {}
        self._went: dict[_Row, Went] = {}
        self._came: dict[_Row, Sent] = {}

    def take(self, message: Message) -> None:
        """Take in what comes next."""
        if isinstance(message, Link):
            self._begin(message)
        elif isinstance(message, Went):
            row = message.table, message.sum
            if self._came.pop(row, None) is None:
                if row in self._went:
                    raise MalformedStreamError(f"a row of {message.table} goes twice")
                self._went[row] = message
        elif isinstance(message, Sent):
            self._came[message.table, canonical.stored(canonical.row_sum(message.canonical))] = message
        else:
            self._tail = message

    def _begin(self, link: Link) -> None:
        if self._link is None:
            self._link = link
        elif self._tail is None or self._tail.sums != link.sums:
            raise MalformedStreamError("the deltas do not follow each other")
        self._schema = link.schema or self._schema
        for name, origin in link.tables.items():
            known = self._tables.get(name)
            self._tables[name] = origin if known is None else known.with_more(origin)

    def messages(self) -> Iterator[Message]:
        """Return the joined delta. What goes comes first and makes room under the keys."""
        if self._link is None or self._tail is None:
            raise MalformedStreamError("there is nothing to join")
        sums = {name: int.from_bytes(total, "big") for name, total in self._link.sums.items()}
        for name, total in self._went:
            sums[name] = sums.get(name, 0) - int.from_bytes(total, "big")
        for name, total in self._came:
            sums[name] = sums.get(name, 0) + int.from_bytes(total, "big")
        _check_sums(sums, self._tail.sums)
        return iter([
            Link(self._link.sums, self._schema, self._tables),
            *self._went.values(),
            *self._came.values(),
            self._tail,
        ])  # fmt: skip


def _check_sums(added: Mapping[str, int], result: Mapping[str, bytes]) -> None:
    """Compare what was added up with what was promised; a table without rows is not in the promise."""
    empty = canonical.stored(0)
    for name in added.keys() | result.keys():
        if canonical.stored(added.get(name, 0)) != result.get(name, empty):
            raise MalformedStreamError(f"the rows of {name} do not add up")
