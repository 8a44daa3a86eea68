"""The rules of a merge: what becomes of the rows of one bucket, given base, theirs and ours.

Plain functions over values. A row is what its travelling columns hold; equal rows are one memory. Rows of a bucket are
versions of each other when base says so, when the bucket holds one row by its nature, or when they are alike. An edit
beats a deletion; two memories are never made one.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

Value = int | float | str | bytes | None
Values = Mapping[str, Value]
Content = tuple[Value, ...]

#: Rows left over on each side of one bucket beyond which versions are found by equal identity alone: the search for
#: the likest pair is quadratic.
MAX_LEFTOVERS = 200
#: Texts that many rows share without being versions of each other.
_TRIVIAL = (None, "", "[]", "{}")


class Favour(Enum):
    """Whose value stays where both changed the same column: the canonical side's."""

    THEIRS = auto()
    OURS = auto()


class Action(Enum):
    """What to do with a row of ours."""

    INSERT = auto()
    UPDATE = auto()
    DELETE = auto()


@dataclass(frozen=True, slots=True)
class Row:
    """A row: its travelling `values`, its rowid in its own database, and what goes along without being content."""

    values: Values
    rowid: int | None = None
    carried: Values = field(default_factory=dict[str, Value])


@dataclass(frozen=True, slots=True)
class Shape:
    """What a table's rules need: columns compared on both sides, identity, and whether a bucket holds one row only."""

    columns: tuple[str, ...]
    identity: tuple[str, ...] = ()
    unique: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """One thing to do: insert `theirs`, give `ours` the `values`, or delete `ours`."""

    action: Action
    values: Values
    ours: Row | None = None
    theirs: Row | None = None


@dataclass(frozen=True, slots=True)
class Clash:
    """A row that both sides changed differently: what stays and the version that is kept only in the journal."""

    kept: Values
    lost: Values
    favour: Favour


@dataclass(slots=True)
class Outcome:
    """What becomes of a bucket; `proposals` counts rows that the canonical memory is to hear about."""

    changes: list[Change] = field(default_factory=list[Change])
    clashes: list[Clash] = field(default_factory=list[Clash])
    proposals: int = 0


@dataclass(frozen=True, slots=True)
class Pair:
    """Two versions of one row; `new` is None where the row is gone."""

    old: Row
    new: Row | None


def merge(
    base: Sequence[Row], theirs: Sequence[Row], ours: Sequence[Row], shape: Shape, favour: Favour = Favour.THEIRS
) -> Outcome:
    """Decide what becomes of ours. Every row keeps its bucket: all have the same key."""
    outcome = Outcome()
    content = _content_of(shape)
    known = {content(row): row for row in theirs}
    held = {content(row): row for row in ours}
    their_rest = [row for key, row in known.items() if key not in held]
    our_rest = [row for key, row in held.items() if key not in known]
    their_old, their_new = _versions(base, known, their_rest, shape)
    our_old, our_new = _versions(base, held, our_rest, shape)
    for row in base:
        _settle(row, their_old.get(id(row), row), our_old.get(id(row), row), (outcome, shape, favour))
    for pair in _paired(their_new, our_new, shape):
        if pair.new is None:
            outcome.changes.append(Change(Action.INSERT, pair.old.values, theirs=pair.old))
        else:
            _merge_rows(None, pair.old, pair.new, (outcome, shape, favour))
            our_new.remove(pair.new)
    outcome.proposals += len(our_new)
    return _without_rows_that_stay(outcome, held, content)


def replace(theirs: Sequence[Row], ours: Sequence[Row], shape: Shape) -> Outcome:
    """Decide how ours becomes exactly theirs; rows that are versions of each other keep their place."""
    content = _content_of(shape)
    known = {content(row): row for row in theirs}
    held = {content(row): row for row in ours}
    outcome = Outcome()
    ours_left = [row for key, row in held.items() if key not in known]
    pairs = _paired(ours_left, [row for key, row in known.items() if key not in held], shape)
    taken = {id(pair.new) for pair in pairs if pair.new is not None}
    for pair in pairs:
        if pair.new is None:
            outcome.changes.append(Change(Action.DELETE, {}, ours=pair.old))
        else:
            outcome.changes.append(Change(Action.UPDATE, _only(pair.new.values, shape), ours=pair.old, theirs=pair.new))
    outcome.changes += [
        Change(Action.INSERT, row.values, theirs=row)
        for key, row in known.items()
        if key not in held and id(row) not in taken
    ]
    return outcome


def edits(canonical: Sequence[Row], ours: Sequence[Row], shape: Shape) -> list[tuple[Row | None, Row | None]]:
    """Return what ours has that the canonical memory has not, as (canonical row, our row): None is new or deleted."""
    content = _content_of(shape)
    known = {content(row): row for row in canonical}
    held = {content(row): row for row in ours}
    pairs = _paired(
        [row for key, row in known.items() if key not in held],
        [row for key, row in held.items() if key not in known],
        shape,
    )
    paired = {id(pair.new) for pair in pairs if pair.new is not None}
    found: list[tuple[Row | None, Row | None]] = [(pair.old, pair.new) for pair in pairs]
    found += [(None, row) for key, row in held.items() if key not in known and id(row) not in paired]
    return found


def _content_of(shape: Shape) -> Callable[[Row], Content]:
    def content(row: Row) -> Content:
        return tuple([row.values.get(column) for column in shape.columns])

    return content


def _versions(
    base: Sequence[Row], side: Mapping[Content, Row], rest: Sequence[Row], shape: Shape
) -> tuple[dict[int, Row | None], list[Row]]:
    """Return what one side made of each row of base (by id; absent: nothing), and the rows that are new there."""
    comparable = _base_columns(base, shape)
    unchanged = {tuple([row.values.get(c) for c in comparable]) for row in side.values()}
    left = [row for row in base if tuple([row.values.get(c) for c in comparable]) not in unchanged]
    originals = {tuple([row.values.get(c) for c in comparable]) for row in base}
    new = [row for row in rest if tuple([row.values.get(c) for c in comparable]) not in originals]
    pairs = _paired(left, new, shape)
    paired = {id(pair.new) for pair in pairs}
    return {id(pair.old): pair.new for pair in pairs}, [row for row in new if id(row) not in paired]


def _base_columns(base: Sequence[Row], shape: Shape) -> tuple[str, ...]:
    """A column that base lacks is a version's difference, not a change of data."""
    if not base:
        return shape.columns
    return tuple([column for column in shape.columns if column in base[0].values])
