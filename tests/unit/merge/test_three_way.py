"""The rules of a merge, row by row and column by column."""

from hypothesis import given
from hypothesis import strategies as st

from membridge.merge.likeness import Likeness, Value
from membridge.merge.three_way import Action, Decision, Favour, Row, RowEdit, Shape, edits, merge, replace, restore

COLUMNS = ("title", "text", "project")
NOTES = Shape(COLUMNS, Likeness(identity=("title", "text")))
SESSION = Shape(COLUMNS, Likeness(unique=True))


def note(title: Value = "t", text: Value = "x", project: Value = "p", *, rowid: int | None = None) -> Row:
    return Row({"title": title, "text": text, "project": project}, rowid)


def actions(decision: Decision) -> list[tuple[Action, Row | None, dict[str, Value]]]:
    return [(change.action, change.ours or change.theirs, dict(change.values)) for change in decision.changes]


def apply(ours: list[Row], decision: Decision) -> list[Row]:
    """Return what ours holds after the outcome."""
    rows = list(ours)
    for change in decision.changes:
        match change:
            case RowEdit(Action.INSERT, theirs=Row() as row):
                rows.append(Row(row.values))
            case RowEdit(Action.DELETE, ours=Row() as row):
                rows = [other for other in rows if other is not row]
            case RowEdit(Action.UPDATE, ours=Row() as row):
                rows = [Row({**row.values, **change.values}) if other is row else other for other in rows]
            case _:
                raise AssertionError(change)
    return rows


def contents(rows: list[Row], shape: Shape = NOTES) -> set[tuple[Value, ...]]:
    return {shape.content(row) for row in rows}


def test_equal_rows_are_one_memory() -> None:
    assert merge([], [note()], [note(), note()], NOTES) == Decision()
    assert merge([note()], [note()], [note()], NOTES) == Decision()


def test_a_row_new_in_theirs_is_inserted_once() -> None:
    new = note()

    assert actions(merge([], [new, note()], [], NOTES)) == [(Action.INSERT, new, {})]


def test_a_row_only_in_ours_stays_and_is_proposed() -> None:
    decision = merge([], [], [note()], NOTES)

    assert decision.changes == []
    assert decision.proposals == 1


def test_a_row_that_theirs_deleted_is_deleted_with_its_copies() -> None:
    ours = [note(rowid=1), note(rowid=2)]

    decision = merge([note()], [], ours, NOTES)

    assert actions(decision) == [(Action.DELETE, ours[0], {}), (Action.DELETE, ours[1], {})]


def test_an_edit_of_ours_beats_a_deletion_of_theirs() -> None:
    decision = merge([note()], [], [note(project="q")], NOTES)

    assert decision.changes == []
    assert decision.proposals == 1


def test_an_edit_of_theirs_beats_a_deletion_of_ours() -> None:
    edited = note(project="q")

    assert actions(merge([note()], [edited], [], NOTES)) == [(Action.INSERT, edited, {})]


def test_a_row_that_ours_deleted_stays_deleted_and_is_proposed() -> None:
    decision = merge([note()], [note()], [], NOTES)

    assert decision.changes == []
    assert decision.proposals == 1


def test_a_row_that_both_deleted_is_gone() -> None:
    assert merge([note()], [], [], NOTES) == Decision()


def test_a_column_that_theirs_changed_is_taken() -> None:
    ours = note(rowid=7)

    decision = merge([note()], [note(project="q")], [ours], NOTES)

    assert actions(decision) == [(Action.UPDATE, ours, {"project": "q"})]
    assert decision.proposals == 0


def test_columns_that_each_side_changed_are_both_taken() -> None:
    decision = merge([note()], [note(title="theirs")], [note(project="ours")], NOTES)

    assert [dict(change.values) for change in decision.changes] == [{"title": "theirs"}]
    assert decision.proposals == 1
    assert decision.clashes == []


def test_both_made_the_same_edit() -> None:
    assert merge([note()], [note(project="q")], [note(project="q")], NOTES) == Decision()


def test_in_a_clash_the_canonical_side_stays_and_the_other_is_kept_aside() -> None:
    base, theirs, ours = note(), note(project="theirs"), note(project="ours")

    pulled = merge([base], [theirs], [ours], NOTES, Favour.THEIRS)
    taken = merge([base], [theirs], [ours], NOTES, Favour.OURS)

    assert [dict(change.values) for change in pulled.changes] == [{"project": "theirs"}]
    assert [(clash.kept["project"], clash.lost["project"]) for clash in pulled.clashes] == [("theirs", "ours")]
    assert taken.changes == []
    assert [(clash.kept["project"], clash.lost["project"]) for clash in taken.clashes] == [("ours", "theirs")]


def test_an_update_of_a_row_that_ours_holds_twice_is_one_of_both() -> None:
    decision = merge([note()], [note(project="q")], [note(rowid=1), note(rowid=2)], NOTES)

    assert [change.ours.rowid for change in decision.changes if change.ours] == [1, 2]


def test_without_base_values_are_filled_in_and_the_canonical_side_wins() -> None:
    theirs, ours = note(title=None, text="theirs", project="p"), note(title="ours", text="ours", project="p")

    decision = merge([], [theirs], [ours], SESSION)

    assert [dict(change.values) for change in decision.changes] == [{"text": "theirs"}]
    assert len(decision.clashes) == 1
    assert decision.proposals == 1


def test_without_base_a_null_of_ours_is_filled_without_a_clash() -> None:
    decision = merge([], [note(title="theirs")], [note(title=None)], SESSION)

    assert [dict(change.values) for change in decision.changes] == [{"title": "theirs"}]
    assert decision.clashes == []


def test_new_rows_of_one_batch_are_two_memories() -> None:
    decision = merge([], [note("a", "one")], [note("a", "two")], NOTES)

    assert [change.action for change in decision.changes] == [Action.INSERT]
    assert decision.proposals == 1


def test_new_rows_that_say_the_same_are_one_memory() -> None:
    decision = merge([], [note(project="theirs")], [note(project="ours")], NOTES)

    assert [change.action for change in decision.changes] == [Action.UPDATE]


def named(row: Row, *names: tuple[str, str]) -> Row:
    return Row(row.values, names=frozenset(names))


def test_new_rows_of_one_origin_are_versions_of_one_memory() -> None:
    ours = named(note("new title"), ("", "7"))

    decision = merge([], [named(note("old title"), ("device", "7"), ("", "7"))], [ours], NOTES)

    assert actions(decision) == [(Action.UPDATE, ours, {"title": "old title"})]
    assert [clash.lost["title"] for clash in decision.clashes] == ["new title"]


def test_one_origin_is_not_enough_when_the_rows_say_different_things() -> None:
    decision = merge([], [named(note("a", "b"), ("", "7"))], [named(note("c", "d"), ("", "7"))], NOTES)

    assert [change.action for change in decision.changes] == [Action.INSERT]


def test_two_rows_of_one_origin_do_not_both_become_one() -> None:
    theirs = [named(note("a"), ("d", "7")), named(note("b"), ("d", "7"))]

    decision = merge([], theirs, [named(note("c"), ("d", "7"))], NOTES)

    assert [change.action for change in decision.changes] == [Action.UPDATE, Action.INSERT]


def test_a_column_that_base_lacks_is_no_change() -> None:
    base = Row({"title": "t", "text": "x"})

    filled = merge([base], [note(project="new")], [note(project=None)], NOTES)
    deleted = merge([base], [], [note(project="anything")], NOTES)

    assert [dict(change.values) for change in filled.changes] == [{"project": "new"}]
    assert filled.clashes == []
    assert [change.action for change in deleted.changes] == [Action.DELETE]


def test_an_edit_of_theirs_that_ours_holds_as_a_version_of_another_row_is_not_inserted() -> None:
    first, second = note("one", "x", "p"), note("two", "y", "q")
    edited = note("one", "y", "q")

    decision = merge([first, second], [edited, second], [edited], NOTES)

    assert decision.changes == []


def test_replacing_makes_ours_theirs_and_keeps_the_place_of_versions() -> None:
    same, version, extra = note("s", "s", rowid=1), note("v", "old", rowid=2), note("e", "e", rowid=3)
    theirs = [note("s", "s"), note("v", "new"), note("n", "n")]

    decision = replace(theirs, [same, version, extra], NOTES)

    assert contents(apply([same, version, extra], decision)) == contents(theirs)
    assert [(c.action, c.ours.rowid) for c in decision.changes if c.ours] == [(Action.DELETE, 3), (Action.UPDATE, 2)]


def test_edits_tell_new_changed_and_deleted() -> None:
    kept, old, gone = note("k", "k"), note("v", "old"), note("g", "g")
    new, added = note("v", "new"), note("a", "a")

    assert edits([kept, old, gone], [kept, new, added], NOTES) == [(old, new), (gone, None), (None, added)]


TEXTS = st.sampled_from(["a", "b", "c", "", None])
ROWS = st.lists(st.builds(note, TEXTS, TEXTS, st.sampled_from(["p", "q"])), max_size=4)


@given(base=ROWS, theirs=ROWS, ours=ROWS)
def test_a_merge_done_again_changes_nothing(base: list[Row], theirs: list[Row], ours: list[Row]) -> None:
    merged = apply(ours, merge(base, theirs, ours, NOTES))

    assert contents(apply(merged, merge(theirs, theirs, merged, NOTES))) == contents(merged)


@given(theirs=ROWS, ours=ROWS)
def test_replacing_always_ends_with_theirs(theirs: list[Row], ours: list[Row]) -> None:
    assert contents(apply(ours, replace(theirs, ours, NOTES))) == contents(theirs)


@given(base=ROWS, theirs=ROWS, ours=ROWS)
def test_every_row_that_no_side_deleted_or_edited_is_still_there(
    base: list[Row], theirs: list[Row], ours: list[Row]
) -> None:
    merged = contents(apply(ours, merge(base, theirs, ours, NOTES)))

    assert merged >= contents(base) & contents(theirs) & contents(ours)


@given(theirs=ROWS, ours=ROWS)
def test_without_base_no_text_is_lost(theirs: list[Row], ours: list[Row]) -> None:
    merged = {content[:2] for content in contents(apply(ours, merge([], theirs, ours, NOTES)))}

    assert merged >= {content[:2] for content in contents(theirs) | contents(ours)}


def test_a_restore_brings_back_what_only_ours_lost_and_keeps_what_was_never_pushed() -> None:
    old, later, own = note("old", "1"), note("later", "2"), note("own", "3")
    decision = restore([old, later], [old], [later, own], NOTES)
    assert actions(decision) == [(Action.DELETE, later, {}), (Action.INSERT, old, {})]
    assert decision.proposals == 1


def test_a_restore_undoes_an_edit_that_was_not_pushed() -> None:
    old, edited = note(), note(project="q", rowid=7)
    assert actions(restore([old], [old], [edited], NOTES)) == [(Action.UPDATE, edited, {"project": "p"})]
    later = note("later", "y", project="q")
    decision = restore([old, note("later", "y")], [old], [old, later], NOTES)
    assert (decision.changes, decision.proposals) == ([], 1)


@given(base=ROWS, theirs=ROWS, ours=ROWS)
def test_a_restored_bucket_is_the_earlier_state_and_rows_of_ours_that_no_snapshot_has(
    base: list[Row], theirs: list[Row], ours: list[Row]
) -> None:
    decision = restore(base, theirs, ours, NOTES)
    after = apply(ours, decision)
    kept = contents(after) - contents(theirs)
    assert contents(theirs) <= contents(after)
    assert kept <= contents(ours) - contents(base)
    assert len(kept) == decision.proposals
    again = restore(base, theirs, after, NOTES)
    assert (contents(apply(after, again)), again.proposals) == (contents(after), decision.proposals)
