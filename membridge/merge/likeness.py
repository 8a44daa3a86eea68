"""Which rows of a bucket are versions of one memory: plain functions over values.

Found by what a memory says (its title, its text), never by what rows of one batch share (their session, their second).
"""

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Value = int | float | str | bytes | None
Values = Mapping[str, Value]

#: Rows on each side of one bucket up to which the likest pairs are searched for; beyond, only equal identity counts.
MAX_SEARCHED = 200
#: What many rows hold without being versions of each other.
_TRIVIAL = (None, "", "[]", "{}")


@dataclass(frozen=True, slots=True)
class Likeness:
    """How versions are recognised: `unique` buckets hold one row, else one of the `identity` columns must be equal."""

    identity: tuple[str, ...] = ()
    unique: bool = False


def pair_versions(
    olds: Sequence[Values],
    news: Sequence[Values],
    likeness: Likeness,
    columns: Sequence[str],
    *,
    strict: bool = False,
) -> dict[int, int]:
    """Return, for positions in `olds`, the position in `news` of another version of the same memory.

    `strict` demands that all identity columns are equal: for rows without a known common ancestor.
    """
    if likeness.unique:
        return {0: 0} if olds and news else {}
    if not likeness.identity:
        return {}
    pairs = _equal_identity(olds, news, likeness.identity)
    taken = set(pairs.values())
    left = [number for number in range(len(olds)) if number not in pairs]
    free = [number for number in range(len(news)) if number not in taken]
    if strict or not left or not free or max(len(left), len(free)) > MAX_SEARCHED:
        return pairs
    scored = sorted(
        (-_score(olds[old], news[new], columns), old, new)
        for old in left
        for new in free
        if is_alike(olds[old], news[new], likeness.identity)
    )
    for _, old, new in scored:
        if old not in pairs and new not in taken:
            pairs[old] = new
            taken.add(new)
    return pairs


def _equal_identity(olds: Sequence[Values], news: Sequence[Values], identity: Sequence[str]) -> dict[int, int]:
    waiting: dict[tuple[Value, ...], deque[int]] = {}
    for number, values in enumerate(news):
        said = tuple([values.get(column) for column in identity])
        if any(value not in _TRIVIAL for value in said):
            waiting.setdefault(said, deque()).append(number)
    pairs: dict[int, int] = {}
    for number, values in enumerate(olds):
        found = waiting.get(tuple([values.get(column) for column in identity]))
        if found:
            pairs[number] = found.popleft()
    return pairs


def is_alike(old: Values, new: Values, identity: Sequence[str]) -> bool:
    """Whether two rows of a bucket can be versions of one memory."""
    return any(old.get(column) == new.get(column) and old.get(column) not in _TRIVIAL for column in identity)


def _score(old: Values, new: Values, columns: Sequence[str]) -> int:
    return sum(old.get(column) == new.get(column) for column in columns)
