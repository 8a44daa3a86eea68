"""Blocking work runs in few threads, and a cancelled call still waits for its own."""

import asyncio
import threading
from pathlib import Path

import pytest

from membridge.aio import threads
from membridge.errors import FileAccessError

#: Seconds a thread of a test waits for its release before it gives up.
PATIENCE = 10.0


async def test_the_result_and_the_arguments_go_through() -> None:
    def join(*parts: str, separator: str) -> str:
        return separator.join(parts)

    assert await threads.run(join, "a", "b", separator="-") == "a-b"


async def test_the_work_runs_off_the_event_loops_thread() -> None:
    assert await threads.run(threading.get_ident) != threading.get_ident()


async def test_an_exception_of_the_function_is_the_callers() -> None:
    def fail() -> None:
        raise ZeroDivisionError("in the thread")

    with pytest.raises(ZeroDivisionError, match="in the thread"):
        await threads.run(fail)


async def test_cancellation_is_delivered_only_when_the_thread_has_ended() -> None:
    began, release, ended = asyncio.Event(), threading.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def copy() -> None:
        loop.call_soon_threadsafe(began.set)
        release.wait(PATIENCE)
        ended.set()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(threads.run(copy))
        await began.wait()
        for _ in range(3):  # an impatient caller
            task.cancel()
            await asyncio.wait({task}, timeout=0.01)
            assert not task.done(), "cancelled while its thread still worked"
        release.set()
        with pytest.raises(asyncio.CancelledError):
            await task

    assert ended.is_set()


async def test_a_failure_after_the_cancellation_stays_a_cancellation() -> None:
    began, release = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def fail_late() -> None:
        loop.call_soon_threadsafe(began.set)
        release.wait(PATIENCE)
        raise ZeroDivisionError("nobody waits for this any more")

    async with asyncio.TaskGroup() as group:
        task = group.create_task(threads.run(fail_late))
        await began.wait()
        task.cancel()
        await asyncio.wait({task}, timeout=0.01)
        release.set()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_no_more_calls_run_at_once_than_there_are_threads() -> None:
    release = threading.Event()
    full = asyncio.Event()
    loop = asyncio.get_running_loop()
    running, most = 0, 0
    guard = threading.Lock()

    def work() -> None:
        nonlocal running, most
        with guard:
            running += 1
            most = max(most, running)
            if running == threads.THREADS:
                loop.call_soon_threadsafe(full.set)
        release.wait(PATIENCE)
        with guard:
            running -= 1

    async with asyncio.TaskGroup() as group:
        for _ in range(threads.THREADS * 3):
            group.create_task(threads.run(work))
        await full.wait()
        release.set()

    assert most == threads.THREADS


async def test_a_call_that_is_cancelled_in_the_queue_never_runs_and_ends_at_once() -> None:
    release, full = threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    started = 0
    ran: list[str] = []

    def hold() -> None:
        loop.call_soon_threadsafe(count)
        release.wait(PATIENCE)

    def count() -> None:
        nonlocal started
        started += 1
        if started == threads.THREADS:
            full.set()

    async with asyncio.TaskGroup() as group:
        holding = [group.create_task(threads.run(hold)) for _ in range(threads.THREADS)]
        await full.wait()
        cancelled = group.create_task(threads.run(ran.append, "cancelled"))
        behind = group.create_task(threads.run(ran.append, "behind"))
        await asyncio.sleep(0)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        assert not any(task.done() for task in holding), "it waited for a thread that it never needed"
        release.set()
        # The pool is first come, first served: once this one has run, the cancelled one would have run too.
        await behind

    assert ran == ["behind"]


async def test_work_apart_needs_no_thread_of_the_pool() -> None:
    release = threading.Event()

    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
        for _ in range(threads.THREADS):
            group.create_task(threads.run(release.wait, PATIENCE))
        # Let all of them begin.
        await asyncio.sleep(0)
        assert await threads.apart(lambda: "done") == "done"
        release.set()


async def test_a_cancelled_call_apart_waits_for_its_thread_and_names_the_file_that_failed() -> None:
    began, release, ended = asyncio.Event(), threading.Event(), threading.Event()
    loop = asyncio.get_running_loop()

    def work() -> None:
        loop.call_soon_threadsafe(began.set)
        release.wait(PATIENCE)
        ended.set()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(threads.apart(work))
        await began.wait()
        task.cancel()
        loop.call_later(0.05, release.set)
        with pytest.raises(asyncio.CancelledError):
            await task
    assert ended.is_set()

    def missing() -> None:
        Path("/nowhere/at all").read_bytes()

    with pytest.raises(FileAccessError, match="/nowhere/at all"):
        await threads.apart(missing)
