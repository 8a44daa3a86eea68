"""The three-way merge of one document: base, ours and theirs, by key where it has keys. Pure.

A document is a leaf, or a map of keys to documents. `pull` makes ours, `push` makes theirs; both say what the new base
is. Keys that are not carried over keep their old base, so that the next merge decides the same.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TypeAlias


class Missing(Enum):
    """The value of what is not there."""

    MISSING = auto()


MISSING = Missing.MISSING


@dataclass(frozen=True, slots=True)
class Leaf:
    """A value that is merged whole. Two leaves are equal if their bytes and the mark of a program are."""

    body: bytes
    executable: bool = False


Tree: TypeAlias = "Leaf | Map | Missing"


@dataclass(frozen=True, slots=True)
class Map:
    """A value that is merged by key, in the order of its keys. It has at least one: an empty one is a leaf."""

    keys: "Mapping[str, Leaf | Map]" = field(default_factory=dict[str, "Leaf | Map"])


class Decision(Enum):
    """What the three sides say of one value."""

    SAME = auto()
    TAKE = auto()
    SEND = auto()
    GONE_THERE = auto()
    GONE_HERE = auto()
    CONFLICT = auto()


@dataclass(frozen=True, slots=True)
class Step:
    """A decision other than SAME, and the keys that lead to the value, none for a whole document."""

    keys: tuple[str, ...]
    decision: Decision
    theirs: Tree


@dataclass(frozen=True, slots=True)
class Merged:
    """The side that a merge makes, the new base, and each decision on the way."""

    result: Tree
    base: Tree
    steps: tuple[Step, ...] = ()


#: Makes one value of two that differ; None keeps ours and reports a conflict.
Joiner: TypeAlias = Callable[[Leaf, Leaf], Leaf]


def decide(base: Tree, ours: Tree, theirs: Tree) -> Decision:
    """Return what to do with one value. A change wins over a deletion."""
    if ours == theirs:
        return Decision.SAME
    if ours == base:
        return Decision.GONE_THERE if theirs is MISSING else Decision.TAKE
    if theirs == base:
        return Decision.GONE_HERE if ours is MISSING else Decision.SEND
    if ours is MISSING:
        return Decision.TAKE
    return Decision.SEND if theirs is MISSING else Decision.CONFLICT


def pull(base: Tree, ours: Tree, theirs: Tree, *, delete: bool = False, join: Joiner | None = None) -> Merged:
    """Return ours with what theirs changed; deletions are carried over with `delete` alone."""

    def settle(step: Step, base: Tree, ours: Tree) -> tuple[Tree, Tree]:
        if step.decision is Decision.TAKE:
            return step.theirs, step.theirs
        if step.decision is Decision.GONE_THERE:
            return (MISSING, MISSING) if delete else (ours, base)
        if step.decision is Decision.CONFLICT:
            if join is not None and isinstance(ours, Leaf) and isinstance(step.theirs, Leaf):
                return join(ours, step.theirs), step.theirs
            return ours, step.theirs
        # Ours is ahead: what is common now is what theirs has.
        return ours, step.theirs

    return _merge((), base, ours, theirs, settle)


def push(base: Tree, ours: Tree, theirs: Tree, *, delete: bool = False) -> Merged:
    """Return theirs with what ours changed; a conflict leaves theirs as it is."""

    def settle(step: Step, base: Tree, ours: Tree) -> tuple[Tree, Tree]:
        if step.decision is Decision.SEND or (step.decision is Decision.GONE_HERE and delete):
            return ours, ours
        return step.theirs, base

    return _merge((), base, ours, theirs, settle)


def without(side: Tree, base: Tree, key: str) -> Tree:
    """Return `side` with the value at `key` as it is in `base`, so that a merge sees no change there.

    Without a key that is the whole document.
    """
    if not key:
        return base
    there = dict(side.keys) if isinstance(side, Map) else {}
    old = base.keys.get(key) if isinstance(base, Map) else None
    if old is None:
        there.pop(key, None)
    else:
        there[key] = old
    if there:
        return Map(there)
    return MISSING if isinstance(side, Map) else side


_Settle: TypeAlias = "Callable[[Step, Tree, Tree], tuple[Tree, Tree]]"


def _merge(keys: tuple[str, ...], base: Tree, ours: Tree, theirs: Tree, settle: _Settle) -> Merged:
    if any(isinstance(side, Map) for side in (ours, theirs)) and Leaf not in map(type, (base, ours, theirs)):
        return _by_key(keys, base, ours, theirs, settle)
    decision = decide(base, ours, theirs)
    if decision is Decision.SAME:
        return Merged(ours, ours)
    step = Step(keys, decision, theirs)
    result, new = settle(step, base, ours)
    return Merged(result, new, (step,))


def _by_key(keys: tuple[str, ...], base: Tree, ours: Tree, theirs: Tree, settle: _Settle) -> Merged:
    old, mine, others = (side.keys if isinstance(side, Map) else Map().keys for side in (base, ours, theirs))
    result: dict[str, Leaf | Map] = {}
    common: dict[str, Leaf | Map] = {}
    steps: list[Step] = []
    for key in {**mine, **others, **old}:
        one = _merge((*keys, key), old.get(key, MISSING), mine.get(key, MISSING), others.get(key, MISSING), settle)
        steps += one.steps
        if one.result is not MISSING:
            result[key] = one.result
        if one.base is not MISSING:
            common[key] = one.base
    return Merged(Map(result) if result else MISSING, Map(common) if common else MISSING, tuple(steps))
