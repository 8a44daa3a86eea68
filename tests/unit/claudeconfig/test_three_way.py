"""The merge of one document: every case of three sides, and two machines that settle whatever each of them did."""

from hypothesis import given
from hypothesis import strategies as st

from membridge.claudeconfig import three_way
from membridge.claudeconfig.three_way import MISSING, Decision, Leaf, Map, Tree

A, B, C = (Leaf(one) for one in (b"a", b"b", b"c"))

leaves = st.sampled_from([A, B, C])
trees = st.recursive(
    leaves, lambda inner: st.dictionaries(st.sampled_from("xyz"), inner, min_size=1, max_size=3).map(Map), max_leaves=6
)
sides = st.one_of(st.just(MISSING), trees)


def test_the_table_of_decisions() -> None:
    table = {
        (A, A, A): Decision.SAME, (A, B, B): Decision.SAME, (MISSING, A, A): Decision.SAME,
        (A, A, B): Decision.TAKE, (MISSING, MISSING, A): Decision.TAKE, (A, MISSING, B): Decision.TAKE,
        (A, B, A): Decision.SEND, (MISSING, A, MISSING): Decision.SEND, (A, B, MISSING): Decision.SEND,
        (A, A, MISSING): Decision.GONE_THERE, (A, MISSING, A): Decision.GONE_HERE,
        (A, B, C): Decision.CONFLICT, (MISSING, A, B): Decision.CONFLICT,
    }  # fmt: skip
    assert {sides: three_way.decide(*sides) for sides in table} == table


@given(sides, sides, sides)
def test_a_pull_and_a_push_agree_and_a_second_one_finds_nothing(base: Tree, ours: Tree, theirs: Tree) -> None:
    pulled = three_way.pull(base, ours, theirs, delete=True)
    again = three_way.pull(pulled.base, pulled.result, theirs, delete=True)
    assert again.result == pulled.result
    assert not [
        step for step in again.steps if step.decision in {Decision.TAKE, Decision.CONFLICT, Decision.GONE_THERE}
    ]

    pushed = three_way.push(pulled.base, pulled.result, theirs, delete=True)
    assert pushed.result == pulled.result
    assert three_way.decide(pushed.base, pulled.result, pushed.result) is Decision.SAME


@given(sides, sides, sides)
def test_without_delete_nothing_of_ours_or_theirs_goes(base: Tree, ours: Tree, theirs: Tree) -> None:
    def paths(tree: Tree, at: tuple[str, ...] = ()) -> set[tuple[str, ...]]:
        if isinstance(tree, Map):
            return {path for key, one in tree.keys.items() for path in paths(one, (*at, key))}
        return set() if tree is MISSING else {at}

    kept = paths(three_way.pull(base, ours, theirs).result)
    # A key may become a map, or a map a value: then it is the way there that stays.
    assert all(any(path[: len(one)] == one or one[: len(path)] == path for one in kept) for path in paths(ours))
    stored = paths(three_way.push(base, ours, theirs).result)
    assert all(any(path[: len(one)] == one or one[: len(path)] == path for one in stored) for path in paths(theirs))


@given(sides, sides, sides)
def test_what_is_held_is_left_alone(base: Tree, ours: Tree, theirs: Tree) -> None:
    assert three_way.pull(base, ours, three_way.without(theirs, base, "")).result == ours
    held = three_way.without(theirs, base, "x")
    merged = three_way.pull(base, ours, held).result
    if all(isinstance(side, Map) for side in (base, ours, theirs)):
        assert isinstance(ours, Map)
        assert isinstance(merged, Map)
        assert merged.keys.get("x") == ours.keys.get("x")


def test_keys_keep_the_order_of_ours() -> None:
    merged = three_way.pull(Map({"b": A}), Map({"z": A, "b": A}), Map({"b": B, "c": C}))

    assert isinstance(merged.result, Map)
    assert list(merged.result.keys) == ["z", "b", "c"]


def test_a_joiner_makes_one_of_two() -> None:
    merged = three_way.pull(A, B, C, join=lambda ours, theirs: Leaf(ours.body + theirs.body))

    assert (merged.result, merged.base) == (Leaf(b"bc"), C)
    assert [step.decision for step in merged.steps] == [Decision.CONFLICT]
