"""The rules of a merge: what becomes of the rows of one bucket, given base, theirs and ours.

Plain functions over values. A row is what its travelling columns hold; equal rows are one memory. Rows of a bucket are
versions of one memory when the bucket holds one row by its nature, or when base knows the one and they are alike. An
edit beats a deletion; two memories are never made one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from membridge.merge.likeness import Likeness, Value, Values, is_alike, pair_versions

Content = tuple[Value, ...]


class Favour(Enum):
    """Whose value stays where both changed the same column: the canonical side's."""

    THEIRS = auto()
    OURS = auto()


class Action(Enum):
    """What to do to the live database."""

    INSERT = auto()
    UPDATE = auto()
    DELETE = auto()


@dataclass(frozen=True, slots=True)
class Row:
    """A row: its travelling `values`, its rowid in its own database, and what goes along without being content.

    `names` are the origins, as (device, row id there), that it is known by; two rows that share one are one memory.
    """

    values: Values
    rowid: int | None = None
    carried: Values = field(default_factory=dict[str, Value])
    names: frozenset[tuple[str, str]] = frozenset()


@dataclass(frozen=True, slots=True)
class RowEdit:
    """One thing to do: insert `theirs`, set `values` in `ours`, or delete `ours`."""

    action: Action
    theirs: Row | None = None
    ours: Row | None = None
    values: Values = field(default_factory=dict[str, Value])


@dataclass(frozen=True, slots=True)
class Clash:
    """A row that both sides changed differently: what stays, and the version that only the journal keeps."""

    kept: Values
    lost: Values


@dataclass(slots=True)
class Decision:
    """What becomes of a bucket; `proposals` counts rows that the canonical memory lacks."""

    changes: list[RowEdit] = field(default_factory=list[RowEdit])
    clashes: list[Clash] = field(default_factory=list[Clash])
    proposals: int = 0


@dataclass(frozen=True, slots=True)
class Shape:
    """How rows of a table are compared: by `columns`, which both sides have, and by likeness."""

    columns: tuple[str, ...]
    likeness: Likeness

    def content(self, row: Row) -> Content:
        """Return what two equal rows have in common."""
        return tuple([row.values.get(column) for column in self.columns])


@dataclass(frozen=True, slots=True)
class _Side:
    """One side's rows against base: what became of each row of base, and what is new."""

    versions: dict[int, Row]
    new: list[Row]


def merge(
    base: Sequence[Row], theirs: Sequence[Row], ours: Sequence[Row], shape: Shape, favour: Favour = Favour.THEIRS
) -> Decision:
    """Decide what becomes of ours, row by row, and column by column where both sides changed a row."""
    decider = _Decider(shape, favour, ours)
    their_side, our_side = _against_base(base, theirs, shape), _against_base(base, ours, shape)
    for number, old in enumerate(base):
        decider.settle(old, their_side.versions.get(number), our_side.versions.get(number))
    known, held = set(map(shape.content, theirs)), set(map(shape.content, ours))
    their_new = [row for row in their_side.new if shape.content(row) not in held]
    our_new = [row for row in our_side.new if shape.content(row) not in known]
    twins = _twins(their_new, our_new, shape)
    for number, row in enumerate(their_new):
        if number in twins:
            decider.combine(None, row, our_new[twins[number]])
        else:
            decider.insert(row)
    decider.decision.proposals += len(our_new) - len(twins)
    return decider.decision


def replace(theirs: Sequence[Row], ours: Sequence[Row], shape: Shape) -> Decision:
    """Decide how ours becomes exactly theirs; versions of one memory keep their place."""
    decider = _Decider(shape, Favour.THEIRS, ours)
    versions, gone, new = _compared(theirs, ours, shape)
    for row in new:
        decider.delete(row)
    for known, held in versions:
        decider.update(held, {column: known.values.get(column) for column in shape.columns}, known)
    for row in gone:
        decider.insert(row)
    return decider.decision


def restore(base: Sequence[Row], theirs: Sequence[Row], ours: Sequence[Row], shape: Shape) -> Decision:
    """Decide how ours becomes theirs, an earlier state, without losing rows that no snapshot has.

    Base is the newest snapshot. What theirs has and ours lost or edited comes back; of the rest a row goes when it is
    in base as it is, and stays otherwise: it was never pushed. Likeness to a row of base does not count, so that a
    restore that was killed half-way and is run again decides the same.
    """
    decider = _Decider(shape, Favour.THEIRS, ours)
    versions, gone, new = _compared(theirs, ours, shape)
    columns = _known(base[0], shape) if base else shape.columns
    pushed = {_only(row, columns) for row in base}
    for row in new:
        if _only(row, columns) in pushed:
            decider.delete(row)
        else:
            decider.decision.proposals += 1
    for known, held in versions:
        decider.update(held, {column: known.values.get(column) for column in shape.columns}, known)
    for row in gone:
        decider.insert(row)
    return decider.decision


def edits(canonical: Sequence[Row], ours: Sequence[Row], shape: Shape) -> list[tuple[Row | None, Row | None]]:
    """Return where ours is not as the canonical memory: (its row, our row), None for one that is new or gone."""
    versions, gone, new = _compared(canonical, ours, shape)
    return [*versions, *((row, None) for row in gone), *((None, row) for row in new)]


def _compared(
    canonical: Sequence[Row], ours: Sequence[Row], shape: Shape
) -> tuple[list[tuple[Row, Row]], list[Row], list[Row]]:
    """Return versions of one memory, rows only the canonical side has, and rows only ours has."""
    known, held = _distinct(canonical, shape), _distinct(ours, shape)
    olds = [row for content, row in known.items() if content not in held]
    news = [row for content, row in held.items() if content not in known]
    pairs = pair_versions([r.values for r in olds], [r.values for r in news], shape.likeness, shape.columns)
    taken = set(pairs.values())
    return (
        [(olds[old], news[new]) for old, new in pairs.items()],
        [row for number, row in enumerate(olds) if number not in pairs],
        [row for number, row in enumerate(news) if number not in taken],
    )


class _Decider:
    """Collects the edits to ours. If ours holds a row twice, both copies are edited."""

    def __init__(self, shape: Shape, favour: Favour, ours: Sequence[Row]) -> None:
        self._shape, self._favour = shape, favour
        self._copies: dict[Content, list[Row]] = {}
        for row in ours:
            self._copies.setdefault(shape.content(row), []).append(row)
        self.decision = Decision()

    def settle(self, old: Row, theirs: Row | None, ours: Row | None) -> None:
        """Decide about a row that base knows; a side is None where it deleted the row."""
        if theirs is None:
            if ours is not None and self._is_as(old, ours):
                self.delete(ours)
            elif ours is not None:
                self.decision.proposals += 1
        elif ours is not None:
            self.combine(old, theirs, ours)
        elif self._is_as(old, theirs):
            self.decision.proposals += 1
        else:
            self.insert(theirs)

    def combine(self, old: Row | None, theirs: Row, ours: Row) -> None:
        """Make one row of two versions, column by column."""
        merged: dict[str, Value] = {}
        clash = False
        for column in self._shape.columns:
            value, clashed = self._column(old, column, theirs.values.get(column), ours.values.get(column))
            merged[column] = value
            clash = clash or clashed
        if clash:
            lost = ours if self._favour is Favour.THEIRS else theirs
            self.decision.clashes.append(Clash(merged, lost.values))
        self.update(ours, merged, theirs)
        if tuple(merged.values()) != self._shape.content(theirs):
            self.decision.proposals += 1

    def insert(self, theirs: Row) -> None:
        """Take in a row of theirs, unless ours has the very same."""
        if self._shape.content(theirs) not in self._copies:
            self.decision.changes.append(RowEdit(Action.INSERT, theirs=theirs))

    def update(self, ours: Row, values: Values, theirs: Row) -> None:
        """Give a row of ours what differs from it in a row made with theirs."""
        changed = {column: value for column, value in values.items() if value != ours.values.get(column)}
        if changed:
            for copy in self._copies[self._shape.content(ours)]:
                self.decision.changes.append(RowEdit(Action.UPDATE, theirs, copy, changed))

    def delete(self, ours: Row) -> None:
        """Take a row out of ours."""
        for copy in self._copies[self._shape.content(ours)]:
            self.decision.changes.append(RowEdit(Action.DELETE, ours=copy))

    def _column(self, old: Row | None, column: str, theirs: Value, ours: Value) -> tuple[Value, bool]:
        if theirs == ours:
            return ours, False
        if old is not None and column in old.values:
            if ours == old.values[column]:
                return theirs, False
            if theirs == old.values[column]:
                return ours, False
        elif theirs is None or ours is None:
            return (ours if theirs is None else theirs), False
        return (theirs if self._favour is Favour.THEIRS else ours), True

    def _is_as(self, old: Row, row: Row) -> bool:
        return all(row.values.get(column) == old.values[column] for column in _known(old, self._shape))


def _twins(theirs: Sequence[Row], ours: Sequence[Row], shape: Shape) -> dict[int, int]:
    """Pair rows of which base knows nothing: those that say the same, and versions of a row with one origin."""
    pairs = pair_versions(
        [row.values for row in theirs], [row.values for row in ours], shape.likeness, shape.columns, strict=True
    )
    taken = set(pairs.values())
    named = {name: number for number, row in enumerate(ours) if number not in taken for name in row.names}
    for number, row in enumerate(theirs):
        found = next((named[name] for name in row.names if name in named), None)
        if number in pairs or found is None or found in taken:
            continue
        if is_alike(row.values, ours[found].values, shape.likeness.identity):
            pairs[number] = found
            taken.add(found)
    return pairs


def _against_base(base: Sequence[Row], side: Sequence[Row], shape: Shape) -> _Side:
    """Find what one side made of each row of base: left as it is, edited, or (absent from the result) deleted.

    A column that base lacks is a difference of versions, no change: rows are compared without it.
    """
    columns = _known(base[0], shape) if base else shape.columns
    same: dict[Content, Row] = {}
    for row in side:
        same.setdefault(_only(row, columns), row)
    versions = {n: same[content] for n, old in enumerate(base) if (content := _only(old, columns)) in same}
    originals = {_only(old, columns) for old in base}
    new = [row for row in _distinct(side, shape).values() if _only(row, columns) not in originals]
    gone = [number for number in range(len(base)) if number not in versions]
    pairs = pair_versions([base[n].values for n in gone], [row.values for row in new], shape.likeness, columns)
    versions.update({gone[number]: new[other] for number, other in pairs.items()})
    taken = set(pairs.values())
    return _Side(versions, [row for number, row in enumerate(new) if number not in taken])


def _known(old: Row, shape: Shape) -> tuple[str, ...]:
    return tuple([column for column in shape.columns if column in old.values])


def _only(row: Row, columns: Iterable[str]) -> Content:
    return tuple([row.values.get(column) for column in columns])


def _distinct(rows: Sequence[Row], shape: Shape) -> dict[Content, Row]:
    found: dict[Content, Row] = {}
    for row in rows:
        found.setdefault(shape.content(row), row)
    return found
