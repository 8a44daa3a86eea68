"""Parts start in order, are watched, and stop in reverse, whatever goes wrong and whenever."""

import asyncio
import subprocess
import sys

import pytest

from membridge.errors import DiskFullError
from membridge.lifecycle import Part, PartEndedError, Ready, apart, run

#: Longer than any test: a part that stops by itself within it is never late.
DRAIN = 10.0


class Diary:
    """What the parts of one run did, in order, and the events that tests wait for."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.stopping = asyncio.Event()
        self.serving = asyncio.Event()

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

    async def run(self, drain: float = DRAIN, **parts: Part) -> list[str]:
        return await run(parts, stopping=self.stopping, on_ready=self.all_ready, drain=drain)

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
    assert diary.lines == ["bus starts", "node starts", "ready", "node stops", "bus stops"]


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
    assert diary.lines == ["node starts", "ready", "node stops"]


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
    assert diary.lines == ["bus starts", "bus stops"]


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
    assert diary.lines == ["bus starts", "never ready stops", "bus stops"]


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
from membridge.lifecycle import PartEndedError, run

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
