"""The tree of errors: drawn as it is, each class with its code, each instance with a sentence."""

import re

import pytest

from membridge import errors
from membridge.errors import HeadMovedError, LeaseHeldError, MembridgeError, RemoteError, UnknownProjectError
from schemas.errors import TABLE, ErrorCode, ErrorReply


def below(kind: type[MembridgeError]) -> list[type[MembridgeError]]:
    return [deeper for one in kind.__subclasses__() for deeper in (one, *below(one))]


CLASSES = [MembridgeError, *(kind for kind in below(MembridgeError) if kind.__module__ == errors.__name__)]


def drawn() -> dict[str, str]:
    """Return each class in the docstring's drawing with the class it hangs under; `A > B` hangs B under A."""
    parents: dict[str, str] = {}
    for line in (errors.__doc__ or "").splitlines():
        if line.startswith(("├── ", "└── ")):
            branch, *leaves = re.findall(r"\b[A-Z]\w*Error\b", line)
            parents |= {branch: "MembridgeError"} | dict.fromkeys(leaves, branch)
            parents |= {leaf: above for above, leaf in re.findall(r"(\w+Error) > (\w+Error)", line)}
    return parents


def test_the_drawn_tree_is_the_tree() -> None:
    assert drawn() == {kind.__name__: kind.__bases__[0].__name__ for kind in CLASSES[1:]}


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_class_has_a_code_and_a_sentence(kind: type[MembridgeError]) -> None:
    assert isinstance(kind.code, ErrorCode)
    assert kind.__name__.endswith("Error")
    assert (kind.__doc__ or "").strip().endswith(".")


def test_every_code_has_a_class() -> None:
    raised = {kind.code for kind in CLASSES}

    assert set(ErrorCode) - raised == set()


def test_an_error_carries_sentence_remedy_and_field_into_its_reply() -> None:
    error = MembridgeError("disk of node a is full", remedy="free 3 GiB", field="database")

    assert str(error) == "disk of node a is full"
    assert error.reply("r-1") == ErrorReply(
        code=ErrorCode.INTERNAL,
        message="disk of node a is full",
        remedy="free 3 GiB",
        field="database",
        request_id="r-1",
    )


def test_a_remedy_that_is_not_given_is_the_classes_own_and_may_be_none() -> None:
    assert "project add" in UnknownProjectError("m").remedy
    assert UnknownProjectError("m", remedy="").remedy == ""


def test_the_mapping_of_an_error_is_the_tables() -> None:
    assert HeadMovedError("m").mapping is TABLE[ErrorCode.HEAD_MOVED]


def test_a_held_lease_names_its_owner() -> None:
    assert LeaseHeldError("m", owner="node-b").owner == "node-b"


def test_a_remote_error_speaks_with_the_other_sides_code_and_changes_no_class() -> None:
    error = RemoteError(ErrorReply(code=ErrorCode.STALE_EPOCH, message="m", remedy="r", request_id="r-2"))

    assert (error.code, error.remedy, error.request_id) == (ErrorCode.STALE_EPOCH, "r", "r-2")
    assert error.mapping is TABLE[ErrorCode.STALE_EPOCH]
    assert RemoteError.code is ErrorCode.INTERNAL
