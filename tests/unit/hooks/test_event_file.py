"""A file of the spool is an event if it names a session, however much of its JSON is there."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from membridge.hooks.event_file import DamagedEventError, HookEvent, parse, texts_of
from membridge.hooks.paths import MOST_BYTES
from schemas.events import SessionMoment
from schemas.identity import NodeId, canonical_id

PROJECT, SECRET = canonical_id("shared"), b"s" * 32
FIELDS: dict[str, object] = {"session_id": "s-1", "cwd": "/work", "prompt_id": "p-1", "prompt": 'say "hé" \\ \n now'}


def file_of(fields: object, event: str = "UserPromptSubmit", project: str = "-") -> bytes:
    return f"membridge 1 {event} {project}\n".encode() + json.dumps(fields).encode()


def event_of(event: str = "Stop", **fields: object) -> HookEvent:
    return parse(file_of({"session_id": "s-1", **fields}, event))


@pytest.mark.parametrize(
    ("event", "moment"),
    [("SessionStart", "started"), ("UserPromptSubmit", "prompted"), ("Stop", "stopped"), ("SessionEnd", "ended")],
)
def test_each_hook_is_a_moment_of_its_session(event: str, moment: str) -> None:
    found = parse(file_of(FIELDS, event, "my project"))
    assert (found.moment, found.project) == (SessionMoment(moment), "my project")
    assert (found.texts["session_id"], found.folder) == ("s-1", "/work")


@given(st.integers(0, 200))
def test_of_a_cut_file_what_comes_before_the_cut_is_taken(cut: int) -> None:
    whole = json.dumps(FIELDS)
    found = texts_of(whole[:cut])
    for name, value in found.items():
        assert value == FIELDS[name] or (name == "prompt" and str(FIELDS[name]).startswith(value))
    complete = [name for name in FIELDS if whole.find(json.dumps(FIELDS[name])) + len(json.dumps(FIELDS[name])) <= cut]
    assert [name for name in complete if found.get(name) == FIELDS[name]] == complete


def test_a_prompt_of_ten_mebibytes_leaves_its_session_and_its_beginning() -> None:
    content = file_of({**FIELDS, "prompt": "ü" * (10 << 20)})
    found = parse(content[:MOST_BYTES])
    assert found.texts["session_id"] == "s-1"
    assert found.texts["prompt"].startswith("üüü")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 100,
        b"membridge 2 Stop -\n{}",
        b"membridge 1 Stop\n{}",
        b"membridge 1 Stop -",
        b"membridge 1 PreToolUse -\n" + json.dumps(FIELDS).encode(),
        b"membridge 1 Stop -\n" + b"[" * 60_000,
        b'membridge 1 Stop -\n{"session_id": 7}',
        b'membridge 1 Stop -\n{"session_id": ""}',
        b'membridge 1 Stop -\n["session_id", "s-1"]',
        b"membridge 1 Stop -\nnull",
        b"membridge 1 Stop -\n\xff\xfe",
    ],
)
def test_what_names_no_session_is_damaged(content: bytes) -> None:
    with pytest.raises(DamagedEventError):
        parse(content)


@given(st.binary(max_size=300))
def test_any_bytes_are_an_event_or_damaged(body: bytes) -> None:
    try:
        found = parse(b"membridge 1 Stop -\n" + body)
    except DamagedEventError:
        return
    assert found.texts["session_id"]


def test_text_that_no_reader_of_events_can_take_is_replaced() -> None:
    found = parse(b'membridge 1 Stop -\n{"session_id": "s\\u0000\\ud800", "cwd": "/\xff"}')
    assert found.texts["session_id"] == "s\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}"


def test_one_event_that_two_hooks_report_has_one_id() -> None:
    again = parse(file_of({"prompt_id": "p-1", "session_id": "s-1", "extra": [1]}, "Stop", "shared"))
    assert event_of(prompt_id="p-1").identity(PROJECT, SECRET) == again.identity(PROJECT, SECRET)


@pytest.mark.parametrize(
    "other",
    [
        event_of(prompt_id="p-2"),
        event_of("SessionEnd", prompt_id="p-1"),
        event_of(prompt_id="p-1", stop_hook_active=True),
        event_of(prompt_id="p-1", session_id="s-2"),
    ],
)
def test_another_event_has_another_id(other: HookEvent) -> None:
    assert event_of(prompt_id="p-1").identity(PROJECT, SECRET) != other.identity(PROJECT, SECRET)


def test_events_without_a_prompt_id_are_told_apart_by_all_that_they_say() -> None:
    first, second = event_of(last_assistant_message="one"), event_of(last_assistant_message="two")
    assert first.identity(PROJECT, SECRET) == event_of(last_assistant_message="one").identity(PROJECT, SECRET)
    assert first.identity(PROJECT, SECRET) != second.identity(PROJECT, SECRET)


def test_an_id_cannot_be_computed_without_the_secret_of_the_machine() -> None:
    assert event_of().identity(PROJECT, SECRET) != event_of().identity(PROJECT, b"t" * 32)


@pytest.mark.parametrize("included", [True, False])
def test_a_prompt_is_told_only_where_the_settings_say_so(included: bool) -> None:
    event = parse(file_of(FIELDS))
    told = event.told(
        project=PROJECT, node=NodeId("a"), at="2026-01-01T00:00:00Z", secret=SECRET, include_prompt=included
    )
    assert told.prompt == (FIELDS["prompt"] if included else None)
    assert (told.session, told.prompt_id, told.folder) == ("s-1", "p-1", "/work")


def test_names_that_are_too_long_for_an_event_are_shortened() -> None:
    event = event_of(reason="r" * 1000, cwd="/" + "c" * 9000)
    told = event.told(project=PROJECT, node=NodeId("a"), at="", secret=SECRET, include_prompt=False)
    assert (len(told.reason), len(told.folder)) == (256, 4096)
