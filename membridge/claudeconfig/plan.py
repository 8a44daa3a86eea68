"""What a push or a pull does with each file, decided for all of them before anything is written. Pure."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from membridge.claudeconfig import documents, rules, three_way
from membridge.claudeconfig.three_way import Decision, Leaf, Map, Merged, Tree

#: A path and the first key of it, empty for a whole file.
Held = frozenset[tuple[str, str]]
Relevant = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class Change:
    """One decision about a file, or about a key of one. A `program` runs code where it is pulled."""

    path: str
    key: str
    decision: Decision
    program: bool = False


@dataclass(slots=True)
class Plan:
    """All decisions, the files that the merge makes, the new common state, and what goes beside a file."""

    changes: list[Change] = field(default_factory=list[Change])
    files: dict[str, Leaf] = field(default_factory=dict[str, Leaf])
    common: dict[str, Leaf] = field(default_factory=dict[str, Leaf])
    beside: dict[str, Leaf] = field(default_factory=dict[str, Leaf])

    def of(self, *decisions: Decision) -> list[Change]:
        """Return the changes with one of these decisions."""
        return [change for change in self.changes if change.decision in decisions]


@dataclass(frozen=True, slots=True)
class Sides:
    """The files of the three sides by path, which of them this run is about, and what it must leave alone."""

    base: Mapping[str, Leaf]
    ours: Mapping[str, Leaf]
    theirs: Mapping[str, Leaf]
    relevant: Relevant
    held: Held = frozenset()

    def paths(self) -> Iterable[str]:
        """Return every path that one side has."""
        return sorted({*self.base, *self.ours, *self.theirs})


def pull(sides: Sides, *, delete: bool) -> Plan:
    """Return what a pull does; `files` is our side afterwards."""

    def merge(path: str, base: Tree, ours: Tree, theirs: Tree) -> Merged:
        for key in _held_keys(sides.held, path):
            theirs = three_way.without(theirs, base, key)
        join = documents.joined if rules.is_list(path) else None
        return three_way.pull(base, ours, theirs, delete=delete, join=join)

    plan = _plan(sides, merge, untouched=sides.ours)
    for path in {change.path for change in plan.of(Decision.CONFLICT)}:
        if not rules.is_list(path):
            _keep_beside(plan, path, sides)
    return plan


def push(sides: Sides, *, delete: bool) -> Plan:
    """Return what a push does; `files` is the shared side afterwards."""

    def merge(path: str, base: Tree, ours: Tree, theirs: Tree) -> Merged:
        for key in _held_keys(sides.held, path):
            ours = three_way.without(ours, base, key)
        return three_way.push(base, ours, theirs, delete=delete)

    return _plan(sides, merge, untouched=sides.theirs)


def programs(plan: Plan) -> list[Change]:
    """Return what a pull would bring here that runs code."""
    return [change for change in plan.of(Decision.TAKE) if change.program]


def _plan(sides: Sides, merge: Callable[[str, Tree, Tree, Tree], Merged], *, untouched: Mapping[str, Leaf]) -> Plan:
    plan = Plan()
    for path in sides.paths():
        base, ours, theirs = sides.base.get(path), sides.ours.get(path), sides.theirs.get(path)
        if sides.relevant(path):
            trees = [documents.tree_of(path, leaf) for leaf in (base, ours, theirs)]
            merged = merge(path, *trees)
            result = _leaf(path, merged.result, untouched.get(path), ours, theirs)
            common = _leaf(path, merged.base, base, theirs, ours)
            changes = [_change(path, step, ours, theirs) for step in merged.steps]
            plan.changes += dict.fromkeys(changes)
        else:
            result, common = untouched.get(path), base
        if result is not None:
            plan.files[path] = result
        if common is not None:
            plan.common[path] = common
    return plan


def _held_keys(held: Held, path: str) -> list[str]:
    return [key for one, key in sorted(held) if one == path]


def _leaf(path: str, tree: Tree, *known: Leaf | None) -> Leaf | None:
    """Return a tree as a file: one of the known ones if it is that, for its exact bytes."""
    for leaf in known:
        if leaf is not None and documents.tree_of(path, leaf) == tree:
            return leaf
    return documents.leaf_of(path, tree)


def _change(path: str, step: three_way.Step, ours: Leaf | None, theirs: Leaf | None) -> Change:
    side = ours if step.decision in {Decision.SEND, Decision.GONE_THERE} else theirs
    first = step.keys[0] if step.keys else ""
    # Of a list the entries are not told apart: they may be long.
    key = "" if rules.is_list(path) else ".".join(step.keys)
    program = rules.runs(path, first) if step.keys else _runs(path, side)
    return Change(path, key, step.decision, program)


def _runs(path: str, leaf: Leaf | None) -> bool:
    if path in {rules.SETTINGS, rules.PLUGINS}:
        tree = documents.tree_of(path, leaf)
        return isinstance(tree, Map) and any(rules.runs(path, key) for key in tree.keys)
    return leaf is not None and rules.is_program(path, leaf.body.decode(errors="replace"), marked=leaf.executable)


def _keep_beside(plan: Plan, path: str, sides: Sides) -> None:
    """Keep the version of the others: a whole file, or of a document the keys that differ."""
    theirs = sides.theirs.get(path)
    tree = documents.tree_of(path, theirs)
    keys = [change.key.split(".", 1)[0] for change in plan.of(Decision.CONFLICT) if change.path == path and change.key]
    if isinstance(tree, Map) and keys:
        kept = documents.leaf_of(path, Map({key: tree.keys[key] for key in keys if key in tree.keys}))
    else:
        kept = theirs
    if kept is not None:
        plan.beside[path] = Leaf(kept.body)


def declined(plan: Plan) -> Held:
    """Return what must be left alone so that a pull brings no program."""
    return frozenset((change.path, change.key.partition(".")[0]) for change in programs(plan))
