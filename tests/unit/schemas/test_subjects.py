"""Subjects: filled only with tokens, told apart by the server, declared once."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from schemas import streams, subjects
from schemas.identity import InvalidTokenError
from schemas.subjects import Impact, Operation, fill

OPERATIONS = {name: value for name, value in vars(subjects).items() if isinstance(value, Operation)}
PACKAGES = ("schemas", "membridge", "services", "hooks")
#: The start of a subject whose second token is a field or a wildcard, or names a node.
SPELT = re.compile(r"membridge\.(\{|\*|>|node\.\{)")
PROJECT = "a1b2c3d4e5f60718"


@pytest.mark.parametrize("bad", ["", "a.b", "a b", "*", ">", "a\n", "{node}", "a" * 65])
def test_a_token_that_could_widen_the_subject_is_refused(bad: str) -> None:
    with pytest.raises(InvalidTokenError, match="node"):
        subjects.PUSH.at(project=PROJECT, node=bad)
    with pytest.raises(InvalidTokenError, match="kind"):
        fill(subjects.EVENT, project=PROJECT, kind=bad)


def test_an_operation_gives_its_subject_and_its_pattern() -> None:
    assert subjects.PUSH.at(project=PROJECT, node="pi") == f"membridge.{PROJECT}.node.pi.push"
    assert subjects.PUSH.pattern() == "membridge.*.node.*.push"
    assert subjects.PUSH.to_primary().at(project=PROJECT) == f"membridge.{PROJECT}.primary.push"


def test_a_missing_token_is_an_error() -> None:
    with pytest.raises(KeyError, match="node"):
        subjects.PUSH.at(project=PROJECT)


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_an_operation_has_a_bounded_deadline_and_a_name_that_micro_allows(operation: Operation) -> None:  # type: ignore[type-arg]
    assert 0 < operation.deadline <= 600
    assert isinstance(operation.impact, Impact)
    assert operation.name.replace("_", "").isalnum()
    assert operation.subject.startswith("membridge.")


def test_no_two_operations_share_a_subject() -> None:
    patterns = Counter(operation.pattern() for operation in OPERATIONS.values())

    assert {pattern for pattern, times in patterns.items() if times > 1} == set()


def test_every_node_operation_is_listed_once() -> None:
    listed = [operation.name for operation in subjects.NODE_OPERATIONS]

    assert sorted(listed) == sorted(
        operation.name for operation in OPERATIONS.values() if operation.subject.startswith("membridge.{project}.node.")
    )


def test_no_stream_captures_a_request() -> None:
    # The stream's acknowledgement would win the race against the reply.
    captured = [subject for stream in (*streams.ALL, *streams.RUNTIME, *streams.WEB) for subject in stream.subjects]
    # A worker's name is the third token, which no stream's word may be.
    named = [operation.at(worker="w") for operation in subjects.WORKER_OPERATIONS]
    words = {subject.split(".")[2] for subject in captured if len(subject.split(".")) == len(named[0].split("."))}
    assert words == subjects.RESERVED_WORKERS - {subjects.COORDINATOR, subjects.GATEWAY}
    of_workers = {operation.subject for operation in subjects.WORKER_OPERATIONS}
    requests = named + [one.pattern() for one in OPERATIONS.values() if one.subject not in of_workers]
    requests += [operation.to_primary().pattern() for operation in subjects.NODE_OPERATIONS]

    assert [(stream, request) for stream in captured for request in requests if _overlap(stream, request)] == []


def test_nothing_outside_the_catalogue_spells_a_subject() -> None:
    root = Path(__file__).parents[3]
    files = [file for package in PACKAGES for file in sorted((root / package).rglob("*.py"))]

    spelt = [
        f"{file.relative_to(root)}: {text}"
        for file in files
        if file != Path(subjects.__file__)
        for text in _texts(ast.parse(file.read_text(encoding="utf-8")))
        if SPELT.match(text)
    ]

    assert len(files) > 20
    assert spelt == []


def _texts(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield ast.unparse(node).removeprefix("f").strip("'\"")
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def _overlap(one: str, other: str) -> bool:
    left, right = one.split("."), other.split(".")
    return len(left) == len(right) and all(a == b or "*" in (a, b) for a, b in zip(left, right, strict=True))
