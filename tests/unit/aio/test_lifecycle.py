"""Parts start in order, are watched, and stop in reverse, whatever goes wrong and whenever."""

import asyncio
import subprocess
import sys
from collections.abc import Awaitable
from contextlib import suppress

import pytest

from membridge.aio.lifecycle import Part, PartEndedError, Ready, awaited_for, run
from membridge.aio.tasks import apart
from membridge.errors import DiskFullError

#: Longer than any test: a part that stops by itself within it is never late.
DRAIN = 10.0


class Diary:
    """What the parts of one run did, in order, and the events that tests wait for."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.stopping = asyncio.Event()
        self.serving, self.hangs, self.release = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def part(self, name: str) -> Part:
        """Return a part that serves until it is cancelled."""

        async def serve(ready: Ready) -> None:
            self.lines.append(f"{name} starts")
            ready()
            try:
                await asyncio.Event().wait()
            finally:
                self.lines.append(f"{name} stops")

        return serve

    def slow(self, name: str) -> Part:
        """Return a part that takes a turn of the loop to stop, as one does that says goodbye to a server."""

        async def serve(ready: Ready) -> None:
            try:
                await self.part(name)(ready)
            finally:
                await asyncio.sleep(0)
                self.lines.append(f"{name} stopped")

        return serve

    def stuck(self, name: str) -> Part:
        """Return a part that does not stop before `release`."""

        async def serve(ready: Ready) -> None:
            ready()
            try:
                await asyncio.Event().wait()
            finally:
                self.lines.append(f"{name} hangs")
                self.hangs.set()
                try:
                    await self.release.wait()
                finally:
                    self.lines.append(f"{name} ends")

        return serve

    async def run(self, drain: float = DRAIN, **parts: Part) -> list[str]:
        return await run(
            parts, stopping=self.stopping, on_ready=self.all_ready, drain=drain, on_stopping=self.begin_to_stop
        )

    def begin_to_stop(self) -> None:
        self.lines.append("stopping")

    def all_ready(self) -> None:
        self.lines.append("ready")
        self.serving.set()


async def test_a_clean_stop_takes_the_parts_down_in_reverse() -> None:
    diary = Diary()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(diary.run(bus=diary.part("bus"), node=diary.part("node")))
        await diary.serving.wait()
        diary.stopping.set()

    assert running.result() == []
    assert diary.lines == ["bus starts", "node starts", "ready", "stopping", "node stops", "bus stops"]


async def test_a_part_starts_only_when_the_one_before_serves() -> None:
    diary = Diary()
    asked, go = asyncio.Event(), asyncio.Event()

    async def slow(ready: Ready) -> None:
        asked.set()
        await go.wait()
        await diary.part("slow")(ready)

    async with asyncio.TaskGroup() as group:
        group.create_task(diary.run(slow=slow, next=diary.part("next")))
        await asked.wait()
        assert diary.lines == []
        go.set()
        await diary.serving.wait()
        diary.stopping.set()

    assert diary.lines[:3] == ["slow starts", "next starts", "ready"]


async def test_a_part_that_is_slow_to_start_is_named_once_and_the_next_one_starts() -> None:
    diary = Diary()
    go = asyncio.Event()

    async def slow(ready: Ready) -> None:
        await go.wait()
        await diary.part("slow")(ready)

    late, soon = (
        awaited_for(seconds, part, late=lambda: diary.lines.append("late"))
        for seconds, part in ((0.0, slow), (60.0, diary.part("soon")))
    )
    async with asyncio.TaskGroup() as group:
        group.create_task(diary.run(slow=late, soon=soon))
        await diary.serving.wait()
        go.set()
        diary.stopping.set()

    assert diary.lines[:3] == ["late", "soon starts", "ready"]


async def test_a_failure_cancels_the_siblings_and_is_raised() -> None:
    diary = Diary()
    fail = asyncio.Event()

    async def fragile(ready: Ready) -> None:
        ready()
        await fail.wait()
        raise ConnectionError("the bus is gone")

    async def break_it(ready: Ready) -> None:
        ready()
        asyncio.get_running_loop().call_soon(fail.set)
        await asyncio.Event().wait()

    with pytest.raises(ExceptionGroup) as failure:
        await diary.run(node=diary.part("node"), fragile=fragile, breaker=break_it)

    assert failure.group_contains(ConnectionError, match="the bus is gone")
    assert diary.lines == ["node starts", "ready", "stopping", "node stops"]


async def test_a_failure_and_a_cancellation_stop_the_parts_in_reverse_too() -> None:
    diary, fail = Diary(), asyncio.Event()

    async def fragile(ready: Ready) -> None:
        ready()
        await fail.wait()
        raise ConnectionError("the bus is gone")

    async with asyncio.TaskGroup() as group:
        running = group.create_task(kept(diary.run(a=diary.slow("a"), b=diary.slow("b"), broken=fragile)))
        await diary.serving.wait()
        fail.set()
        assert isinstance(await running, ExceptionGroup)
    stops = ["stopping", "b stops", "b stopped", "a stops", "a stopped"]
    assert diary.lines[-5:] == stops

    diary.serving.clear()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(kept(diary.run(a=diary.slow("a"), b=diary.slow("b"))))
        await diary.serving.wait()
        running.cancel()
    assert running.cancelled()
    assert diary.lines[-5:] == stops


async def test_an_impatient_second_cancellation_stops_all_at_once_and_leaves_nothing() -> None:
    diary = Diary()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(kept(diary.run(a=diary.part("a"), b=diary.stuck("b"))))
        await diary.serving.wait()
        running.cancel()
        await diary.hangs.wait()
        assert diary.lines[-1] == "b hangs"
        running.cancel()
        diary.release.set()
    assert running.cancelled()
    assert diary.lines[-2:] == ["a stops", "b ends"] or diary.lines[-2:] == ["b ends", "a stops"]


async def test_what_fails_while_it_is_stopped_is_raised_whatever_stopped_it() -> None:
    async def sour(ready: Ready) -> None:
        ready()
        try:
            await asyncio.Event().wait()
        finally:
            raise OSError("no space left")

    for cancelled in (True, False):
        diary = Diary()
        async with asyncio.TaskGroup() as group:
            running = group.create_task(kept(diary.run(a=diary.part("a"), sour=sour)))
            await diary.serving.wait()
            if cancelled:
                running.cancel()
            else:
                diary.stopping.set()
            failure = await running
        assert isinstance(failure, ExceptionGroup)
        assert failure.subgroup(OSError) is not None
        assert diary.lines[-2:] == ["stopping", "a stops"]


async def kept(running: Awaitable[object]) -> object:
    """Return what a run ended with, its failure too."""
    try:
        return await running
    except ExceptionGroup as failure:
        return failure


async def test_a_part_that_returns_unasked_is_a_failure() -> None:
    diary = Diary()

    async def brief(ready: Ready) -> None:
        ready()

    with pytest.raises(ExceptionGroup) as failure:
        await diary.run(node=diary.part("node"), brief=brief)

    assert failure.group_contains(PartEndedError, match="brief ended unasked")
    assert diary.lines[-1] == "node stops"


async def test_a_failure_before_ready_stops_what_had_started_and_starts_nothing_more() -> None:
    diary = Diary()

    async def broken(_: Ready) -> None:
        raise OSError("address in use")

    with pytest.raises(ExceptionGroup) as failure:
        await diary.run(bus=diary.part("bus"), broken=broken, node=diary.part("node"))

    assert failure.group_contains(OSError, match="address in use")
    assert diary.lines == ["bus starts", "stopping", "bus stops"]


async def test_a_part_that_is_slow_to_stop_is_named_and_the_others_still_stop() -> None:
    diary = Diary()
    release = asyncio.Event()

    async def stubborn(ready: Ready) -> None:
        ready()
        try:
            await asyncio.Event().wait()
        finally:
            diary.lines.append("stubborn lingers")
            await release.wait()
            diary.lines.append("stubborn stops")

    async def first(ready: Ready) -> None:
        try:
            await diary.part("first")(ready)
        finally:
            release.set()

    async with asyncio.TaskGroup() as group:
        running = group.create_task(diary.run(drain=0.01, first=first, stubborn=stubborn))
        await diary.serving.wait()
        diary.stopping.set()

    assert running.result() == ["stubborn"]
    assert diary.lines[-3:] == ["stubborn lingers", "first stops", "stubborn stops"]


async def test_a_part_whose_cancellation_was_swallowed_does_not_run_for_ever() -> None:
    diary = Diary()

    async def deaf(ready: Ready) -> None:
        ready()
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await diary.part("deaf")(ready)

    async with asyncio.TaskGroup() as group:
        running = group.create_task(diary.run(drain=0.01, first=diary.part("first"), deaf=deaf))
        await diary.serving.wait()
        diary.stopping.set()

    assert running.result() == ["deaf"]
    assert diary.lines[-2:] == ["first stops", "deaf stops"]


async def test_a_stop_while_starting_starts_no_further_part() -> None:
    diary = Diary()

    async def never_ready(_: Ready) -> None:
        diary.stopping.set()
        try:
            await asyncio.Event().wait()
        finally:
            diary.lines.append("never ready stops")

    late = await diary.run(bus=diary.part("bus"), never=never_ready, node=diary.part("node"))

    assert late == []
    assert diary.lines == ["bus starts", "stopping", "never ready stops", "bus stops"]


async def test_a_cancelled_run_cleans_up_and_stays_cancelled() -> None:
    diary = Diary()
    async with asyncio.TaskGroup() as group:
        running = group.create_task(diary.run(bus=diary.part("bus")))
        await diary.serving.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    assert diary.lines[-1] == "bus stops"


async def test_what_fails_apart_is_returned_and_leaves_its_caller_usable() -> None:
    async def nested() -> None:
        async with asyncio.TaskGroup() as outer, asyncio.TaskGroup() as inner:
            outer.create_task(asyncio.Event().wait())
            inner.create_task(_raise(OSError("second")))
            inner.create_task(_raise(DiskFullError("first of ours")))

    ended: list[str] = []
    async with asyncio.TaskGroup() as group:
        sibling = group.create_task(asyncio.Event().wait())
        failure = await apart(nested(), name="nested")
        assert isinstance(failure, DiskFullError)
        # On Python 3.11 a task in which a group failed looks cancelled, and every later time-out goes wrong.
        current = asyncio.current_task()
        assert current is not None
        assert current.cancelling() == 0
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await asyncio.Event().wait()
        assert not sibling.done()
        sibling.cancel()
        ended.append("group")
    assert ended == ["group"]


async def test_a_part_that_is_apart_is_cancelled_with_its_caller() -> None:
    began, ended = asyncio.Event(), list[str]()

    async def serve() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("part")

    async with asyncio.TaskGroup() as group:
        running = group.create_task(apart(serve(), name="part"))
        await began.wait()
        running.cancel()
    assert running.cancelled()
    assert ended == ["part"]
    assert await apart(_nothing(), name="well") is None


async def _raise(error: Exception) -> None:
    raise error


async def _nothing() -> None:
    return


def test_all_of_this_holds_in_pythons_development_mode() -> None:
    # Dev mode makes asyncio complain of tasks destroyed while pending and of exceptions nobody fetched.
    command = [sys.executable, "-X", "dev", "-W", "error", "-c", DEVELOPMENT_RUN]
    result = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=60, check=False)

    assert (result.returncode, result.stdout, result.stderr) == (0, "stopped\nfailed\nended\n", "")


DEVELOPMENT_RUN = """
import asyncio
from membridge.aio.lifecycle import PartEndedError, run

async def serve(ready):
    ready()
    await asyncio.Event().wait()

async def fail(ready):
    raise OSError("no")

async def end(ready):
    ready()

async def main(parts, stop):
    stopping = asyncio.Event()
    await run(parts, stopping=stopping, on_ready=stopping.set if stop else (lambda: None), drain=5)

asyncio.run(main({"a": serve, "b": serve}, True))
print("stopped")
for broken, kind in ((fail, OSError), (end, PartEndedError)):
    try:
        asyncio.run(main({"a": serve, "b": broken}, False))
    except* kind:
        print("failed" if kind is OSError else "ended")
"""
