"""A question is answered, whatever comes beside it, and within the time; nothing of either is left."""

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from membridge.aio.tasks import background
from membridge.errors import FileAccessError
from membridge.hooks import run_folder, session_questions
from membridge.hooks.event_file import HookEvent
from membridge.hooks.paths import MOST_BYTES, HookPaths, hook_paths
from membridge.hooks.session_answer import Answering, answer
from membridge.hooks.session_questions import AT_ONCE, FORGOTTEN, serve
from tests.fixtures.hooks import SESSION, ask, ask_bytes, told
from tests.fixtures.pace import pause

WHOLE = b'membridge 1 SessionStart -\n{"session_id": "s-1", "cwd": "/work"}\n'


async def echo(event: HookEvent) -> str:
    return f"{event.texts['session_id']} in {event.folder} of {event.project}"


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HookPaths:
    monkeypatch.setattr(run_folder, "SHARED_MEMORY", tmp_path / "none")
    return hook_paths(tmp_path / "s")


@asynccontextmanager
async def answering(
    paths: HookPaths, work: Callable[[HookEvent], Awaitable[str]] = echo, patience: float = 20.0
) -> AsyncGenerator[None]:
    served = Answering(work, lambda: "late", patience)

    async def asked(content: bytes, group: asyncio.TaskGroup, free: Callable[[], None]) -> bytes:
        return await answer(content, group, served, free)

    async with background() as group:
        group.create_task(serve(paths, {}, asked))
        async with asyncio.timeout(20.0):
            while not paths.heartbeat.exists():
                await pause()
        yield


async def test_a_question_is_answered_with_what_its_hook_prints(paths: HookPaths) -> None:
    async with answering(paths):
        assert await ask(paths, "boat plans", more="unknown") == f"{SESSION} in /work of boat plans"
        assert await ask(paths, cwd='/a "b"\u2028', project="-") == f'{SESSION} in /a "b"\u2028 of None'
        assert not any(paths.questions.iterdir())
    assert not paths.run.exists()


@pytest.mark.parametrize(
    "question",
    [
        b"\n", b"\0\xff\n", b"membridge 1 SessionStart -\n", b"membridge 1 SessionStart -\n{}\n",
        b'membridge 1 Unknown -\n{"session_id": "s"}\n', b'membridge 2 SessionStart -\n{"session_id": "s"}\n',
        b"x" * (2 * MOST_BYTES),
    ],
)  # fmt: skip
async def test_what_is_no_question_is_told_nothing_and_the_next_one_is_answered(
    paths: HookPaths, question: bytes
) -> None:
    async with answering(paths):
        assert await ask_bytes(paths, question) == b""
        assert await ask(paths)


async def test_a_question_that_is_cut_is_answered_as_far_as_it_goes(paths: HookPaths) -> None:
    start = b'membridge 1 SessionStart -\n{"session_id": "s-1", "cwd": "/work", "more": "'
    async with answering(paths):
        assert told(await ask_bytes(paths, start + b"x" * MOST_BYTES)) == "s-1 in /work of None"


async def test_a_question_that_is_written_in_place_is_answered_once_it_is_complete(paths: HookPaths) -> None:
    async with answering(paths):
        with (paths.questions / "q").open("wb", buffering=0) as file:
            for at in range(0, len(WHOLE), 20):
                assert not (paths.answers / "q").exists()
                file.write(WHOLE[at : at + 20])
                assert await ask(paths)
        async with asyncio.timeout(20.0):
            while not (paths.answers / "q").exists():
                await pause()
        assert told((paths.answers / "q").read_bytes()) == "s-1 in /work of None"


async def test_what_nobody_waits_for_any_more_is_removed(paths: HookPaths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_questions, "BEAT_EVERY", 0.05)
    async with answering(paths):
        for name, content in (("old", WHOLE), ("torn", WHOLE[:-1]), (".part", WHOLE[:9])):
            old = paths.run / name
            old.write_bytes(content)
            at = old.stat().st_mtime - FORGOTTEN - 1
            os.utime(old, (at, at))
            old.rename(paths.questions / name)
        assert await ask(paths)
        assert len(list(paths.answers.iterdir())) == 1
        assert list(paths.questions.iterdir()) == []
        monkeypatch.setattr(session_questions, "FORGOTTEN", 0.1)
        async with asyncio.timeout(20.0):
            while any(paths.answers.iterdir()) or any(paths.questions.iterdir()):
                await pause()


async def test_a_pipe_a_link_and_a_folder_in_its_place_hold_nothing_up(paths: HookPaths, tmp_path: Path) -> None:
    async with answering(paths):
        os.mkfifo(paths.questions / "a pipe")
        (paths.questions / "a folder").mkdir()
        (paths.questions / "a link").symlink_to(tmp_path)
        assert await ask(paths)


async def test_work_that_takes_too_long_is_left_behind_and_answered_in_time(paths: HookPaths) -> None:
    ended = asyncio.Event()

    async def never(_: HookEvent) -> str:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return ""

    async with answering(paths, never, patience=0.2):
        assert await ask(paths) == "late"
        async with asyncio.timeout(20.0):
            await ended.wait()


async def test_work_that_fails_gets_nothing_and_harms_nothing_else(paths: HookPaths) -> None:
    async def fails_once(event: HookEvent) -> str:
        if event.folder == "/fails":
            raise ValueError("a fault")
        return await echo(event)

    async with answering(paths, fails_once):
        assert await ask(paths, cwd="/fails") == ""
        assert await ask(paths)


async def test_a_hook_that_has_given_up_keeps_no_other_from_being_answered(paths: HookPaths) -> None:
    async with answering(paths):
        for number in range(AT_ONCE + 10):
            given_up = paths.questions / f"q-{number}"
            given_up.write_bytes(WHOLE)
            given_up.unlink()
        assert await ask(paths)


async def test_twice_as_many_as_are_worked_on_at_once_are_all_answered(paths: HookPaths) -> None:
    async with answering(paths):
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(ask(paths, session_id=f"s-{number}")) for number in range(2 * AT_ONCE)]
        assert [task.result() for task in asked] == [f"s-{number} in /work of None" for number in range(2 * AT_ONCE)]


async def test_questions_that_a_killed_daemon_left_are_not_answered(paths: HookPaths) -> None:
    for folder in (paths.questions, paths.answers):
        folder.mkdir(parents=True)
        (folder / "left").write_bytes(WHOLE)
    async with answering(paths):
        assert await ask(paths)
        assert not (paths.answers / "left").exists()
        assert not (paths.questions / "left").exists()


@pytest.mark.parametrize("folder", ["questions", "answers"])
async def test_a_folder_that_was_removed_ends_the_part_which_begins_anew(
    paths: HookPaths, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    monkeypatch.setattr(session_questions, "BEAT_EVERY", 0.05)

    async def removed() -> None:
        async with answering(paths):
            (paths.run / folder).rmdir()
            await asyncio.Event().wait()

    with pytest.raises(FileAccessError):
        await removed()
