"""Which rows of a bucket are versions of one memory."""

from membridge.merge.likeness import MAX_SEARCHED, Likeness, Values, pair_versions

NOTES = Likeness(identity=("title", "text"))
COLUMNS = ("title", "text", "project")


def note(title: str | None, text: str | None, project: str = "p") -> Values:
    return {"title": title, "text": text, "project": project}


def test_a_bucket_of_one_row_pairs_whatever_it_holds() -> None:
    unique = Likeness(unique=True)

    assert pair_versions([note("a", "b")], [note("x", "y")], unique, COLUMNS) == {0: 0}
    assert pair_versions([], [note("x", "y")], unique, COLUMNS) == {}
    assert pair_versions([note("x", "y")], [], unique, COLUMNS) == {}


def test_without_identity_nothing_pairs() -> None:
    assert pair_versions([note("a", "b")], [note("a", "b")], Likeness(), COLUMNS) == {}


def test_rows_that_say_the_same_pair_first() -> None:
    olds = [note("a", "one"), note("a", "two")]
    news = [note("a", "two", "q"), note("a", "one", "q")]

    assert pair_versions(olds, news, NOTES, COLUMNS) == {0: 1, 1: 0}


def test_each_row_is_paired_once() -> None:
    assert pair_versions([note("a", "one"), note("a", "one")], [note("a", "one", "q")], NOTES, COLUMNS) == {0: 0}


def test_one_equal_text_is_enough_for_a_version() -> None:
    assert pair_versions([note("old", "text")], [note("new", "text")], NOTES, COLUMNS) == {0: 0}
    assert pair_versions([note("title", "old")], [note("title", "new")], NOTES, COLUMNS) == {0: 0}


def test_rows_that_share_nothing_said_are_two_memories() -> None:
    assert pair_versions([note("a", "b")], [note("c", "d")], NOTES, COLUMNS) == {}


def test_empty_texts_are_no_likeness() -> None:
    assert pair_versions([note("a", "")], [note("b", "")], NOTES, COLUMNS) == {}
    assert pair_versions([note(None, "[]")], [note(None, "[]")], NOTES, COLUMNS) == {}


def test_the_likest_pair_is_taken() -> None:
    olds = [note("a", "one", "p")]
    news = [note("a", "two", "q"), note("a", "three", "p")]

    assert pair_versions(olds, news, NOTES, COLUMNS) == {0: 1}


def test_a_row_taken_by_a_liker_one_is_not_taken_again() -> None:
    olds = [note("a", "one", "q"), note("a", "two", "p")]
    news = [note("a", "three", "p")]

    assert pair_versions(olds, news, NOTES, COLUMNS) == {1: 0}


def test_without_a_common_ancestor_all_texts_must_be_equal() -> None:
    assert pair_versions([note("a", "one")], [note("a", "two")], NOTES, COLUMNS, strict=True) == {}
    assert pair_versions([note("a", "one")], [note("a", "one", "q")], NOTES, COLUMNS, strict=True) == {0: 0}


def test_in_a_crowd_only_equal_texts_pair() -> None:
    crowd = MAX_SEARCHED + 1
    olds = [note(f"t{n}", f"x{n}") for n in range(crowd + 1)]
    news = [note(f"t{n}", f"y{n}") for n in range(crowd)] + [note(f"t{crowd}", f"x{crowd}", "q")]

    assert pair_versions(olds, news, NOTES, COLUMNS) == {crowd: crowd}
    assert len(pair_versions(olds[:3], news[:3], NOTES, COLUMNS)) == 3
