"""The main job on real input: two running claude-mem workers, two node daemons, one memory.

Everything here is a process of its own: what is checked is what each worker's own API answers.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from membridge.embedded.nats_server import NatsServer
from membridge.testing.node_process import NodeProcess
from tests.real.worker import Worker, start_worker

pytestmark = pytest.mark.real

#: Seconds until what one worker saved must be seen through the other.
SOON = 40.0


@asynccontextmanager
async def node(name: str, home: Path, server: NatsServer) -> AsyncGenerator[NodeProcess]:
    """A node daemon on the machine whose home is `home`."""
    machine = NodeProcess(name, home, server.url, "shared")
    await machine.start()
    try:
        yield machine
    finally:
        await machine.stop()


async def seen(worker: Worker, project: str, texts: set[str], machines: list[NodeProcess]) -> None:
    """Wait until the worker's API shows `texts`; fail with the daemons' logs when it does not."""
    try:
        async with asyncio.timeout(SOON):
            # The worker tells nobody that a row arrived: asking its API is what a user would do.
            while not texts <= await asyncio.to_thread(worker.texts, project):
                await asyncio.to_thread(worker.health)
    except TimeoutError:
        logs = "\n".join(f"--- {machine.name}\n{machine.log.read_text()[-3000:]}" for machine in machines)
        missing = texts - await asyncio.to_thread(worker.texts, project)
        pytest.fail(f"missing: {sorted(missing)}\n{logs}")


async def test_what_one_worker_saves_the_other_shows(tmp_path: Path, nats_server: NatsServer) -> None:
    with start_worker(tmp_path / "a") as a, start_worker(tmp_path / "b") as b:
        await asyncio.to_thread(a.save, "before any sync, on a", "boat")
        await asyncio.to_thread(b.save, "before any sync, on b", "boat")
        async with node("a", tmp_path / "a", nats_server) as one, node("b", tmp_path / "b", nats_server) as other:
            machines = [one, other]
            both = {"before any sync, on a", "before any sync, on b"}
            await seen(a, "boat", both, machines)
            await seen(b, "boat", both, machines)

            texts = {f"{name} learned {number}" for name in "ab" for number in range(5)}
            for text in sorted(texts):
                await asyncio.to_thread((a if text.startswith("a") else b).save, text, "boat")
            await seen(a, "boat", both | texts, machines)
            await seen(b, "boat", both | texts, machines)

            found = await asyncio.to_thread(b.search, "learned", "boat")
            assert {row["title"] for row in found} >= {f"a learned {number}" for number in range(5)}

            await one.kill()
            await asyncio.to_thread(b.save, "while a was cut off", "boat")
            await asyncio.to_thread(a.save, "a wrote meanwhile", "boat")
            await one.start()
            last = {"while a was cut off", "a wrote meanwhile"}
            await seen(a, "boat", both | texts | last, machines)
            await seen(b, "boat", both | texts | last, machines)
        assert sorted(await asyncio.to_thread(a.texts, "boat")) == sorted(await asyncio.to_thread(b.texts, "boat"))
        assert len(await asyncio.to_thread(a.memories, "boat")) == len(both | texts | last)


async def test_a_worker_is_stopped_after_a_replacement_only_where_that_is_allowed(
    tmp_path: Path, nats_server: NatsServer
) -> None:
    def machine(name: str, **extra: str) -> NodeProcess:
        return NodeProcess(name, tmp_path / name, nats_server.url, "shared", extra=extra)

    with start_worker(tmp_path / "a") as a, start_worker(tmp_path / "b") as b:
        await asyncio.to_thread(a.save, "kept", "boat")
        await asyncio.to_thread(b.save, "replaced", "boat")
        assert (await machine("a").command("push"))[0] == 0
        assert (await machine("b").command("pull", "--replace"))[0] == 0
        assert await asyncio.to_thread(b.texts, "boat") == {"kept"}
        allowed = machine("b", MEMBRIDGE_ALLOW_PROCESS_CONTROL="1")
        code, output = await allowed.command("pull", "--replace")
        assert code == 0, output
        async with asyncio.timeout(20.0):
            assert await asyncio.to_thread(b.process.wait, 20.0) == 0
