"""What breaks around a elector: the server stops, restarts or forgets, a machine sleeps, two machines share a name."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from membridge.bus.connection import Bus
from membridge.bus.kv import Kv
from membridge.embedded.nats_server import NatsServer, start_nats
from membridge.errors import LeaseLostError
from membridge.leadership.rules import Freshness
from schemas import buckets
from schemas.identity import NodeId
from schemas.leadership import Policy, Role
from tests.integration.leadership.candidates import PROJECT, SLACK, TTL, Candidate, History, candidate, leaders, soon


@contextmanager
def paused(pid: int) -> Generator[None]:
    """Stop a process with SIGSTOP during the body."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


async def until_epoch(node: Candidate, epoch: int) -> None:
    """Wait until the node leads under an epoch of at least `epoch`."""
    async with asyncio.timeout(6 * TTL):
        view = node.elector.view()
        while view.role is not Role.PRIMARY or view.epoch < epoch:
            view = await node.elector.changed(view)


async def test_after_a_suspend_longer_than_the_lease_a_primary_knows_at_once(nats_url: str) -> None:
    async with candidate(nats_url, "a") as a:
        await a.until(Role.PRIMARY)
        a.offset = TTL
        assert a.elector.view().role is Role.SECONDARY
        with pytest.raises(LeaseLostError):
            a.elector.epoch_for_commit()
        # Nobody else had it meanwhile, so there is nothing to wait for.
        assert await a.until(Role.PRIMARY) < SLACK
        assert a.elector.epoch_for_commit() == 2


_SLEEPER = """
import asyncio, sys
from membridge.bus.connection import connect
from membridge.bus.options import BusOptions
from membridge.aio.deadline import Deadline
from membridge.leadership.elector import Election, Elector, ElectorOptions
from membridge.leadership.rules import Freshness
from schemas.leadership import Role

async def freshness():
    return Freshness(0, 0, 0, 0, 0)

async def flush(deadline):
    pass

async def main(url, project, ttl):
    async with connect(BusOptions(urls=(url,), name="sleeper"), deadline=Deadline.after(5)) as bus:
        options = ElectorOptions(lease_seconds=ttl, preferred="sleeper")
        elector = Elector(bus, Election(project, "led", "sleeper"), options=options, freshness=freshness, flush=flush)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(elector.run(lambda: None))
            while elector.view().role is not Role.PRIMARY:
                await elector.changed(elector.view())
            print("leads", flush=True)
            # Blocks the loop on purpose: what is said after the stop is said without any input or output between.
            sys.stdin.readline()
            print(elector.view().role.value, flush=True)
            task.cancel()

asyncio.run(main(sys.argv[1], sys.argv[2], float(sys.argv[3])))
"""


@contextmanager
def sleeper(url: str) -> Generator["subprocess.Popen[str]"]:
    """Run a process that leads, and says what it believes when it is asked by a line."""
    command = [sys.executable, "-c", _SLEEPER, url, PROJECT, str(TTL)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


async def test_a_process_stopped_for_longer_than_the_lease_does_not_believe_to_lead(nats_url: str) -> None:
    with sleeper(nats_url) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        while "leads" not in await asyncio.to_thread(process.stdout.readline):
            assert process.poll() is None
        async with candidate(nats_url, "b", policy=Policy.AUTO) as b:
            with paused(process.pid):
                await b.elector.select(NodeId("b"), policy=None, issued_by="", deadline=soon())
                await b.until(Role.PRIMARY)
                assert b.elector.epoch_for_commit() == 2
                process.stdin.write("\n")
                process.stdin.flush()
            assert (await asyncio.to_thread(process.stdout.readline)).strip() == "secondary"
            await b.stays(Role.PRIMARY, seconds=TTL / 2)


async def test_answers_that_are_lost_for_less_than_the_lease_cost_nothing(
    nats_url: str, nats_server: NatsServer
) -> None:
    async with candidate(nats_url, "a", ttl=2.4) as a:
        await a.until(Role.PRIMARY)
        # Renewals are sent, time out, and are all carried out later: only their answers are lost.
        with paused(nats_server.pid):
            await a.stays(Role.PRIMARY, seconds=1.3)
        await a.stays(Role.PRIMARY, seconds=2.0)
        assert a.elector.epoch_for_commit() == 1


async def test_a_primary_whose_server_hangs_stops_acting_in_time_and_leads_again_afterwards(
    nats_url: str, nats_server: NatsServer
) -> None:
    async with candidate(nats_url, "a") as a, candidate(nats_url, "b") as b:
        await a.until(Role.PRIMARY)
        with paused(nats_server.pid):
            assert await a.until(Role.SECONDARY) <= TTL
            with pytest.raises(LeaseLostError):
                a.elector.epoch_for_commit()
        # In a new term, or in the old one when a renewal was only answered late.
        await a.until(Role.PRIMARY)
        assert not b.leads


async def test_leadership_goes_on_after_the_server_restarted(tmp_path: Path) -> None:
    with start_nats(tmp_path / "nats") as server:
        port = int(server.url.rsplit(":", 1)[1])
        async with candidate(server.url, "a") as a, candidate(server.url, "b") as b:
            await a.until(Role.PRIMARY)
            await b.until_it_sees("a")
            os.kill(server.pid, signal.SIGTERM)
            await asyncio.to_thread(os.waitpid, server.pid, 0)
            with start_nats(tmp_path / "nats", port=port):
                for node in (a, b):
                    await node.bus.wait_generation(1)
                await a.until(Role.PRIMARY)
                epoch = a.elector.epoch_for_commit()
                await a.elector.select(NodeId("b"), policy=None, issued_by="", deadline=soon())
                await b.until(Role.PRIMARY)
                assert b.elector.epoch_for_commit() == epoch + 1


async def test_epochs_go_on_with_one_primary_when_the_store_is_wiped(tmp_path: Path) -> None:
    with start_nats(tmp_path / "nats") as server:
        port = int(server.url.rsplit(":", 1)[1])
        known = Freshness(3, 9, 3, 9, 4)
        async with (
            candidate(server.url, "a", stands=known, policy=Policy.AUTO) as a,
            candidate(server.url, "b", stands=known, policy=Policy.AUTO, grace_seconds=0.0) as b,
        ):
            await a.until(Role.PRIMARY)
            assert a.elector.epoch_for_commit() == 5
            await b.until_it_sees("a")
            os.kill(server.pid, signal.SIGTERM)
            await asyncio.to_thread(os.waitpid, server.pid, 0)
            shutil.rmtree(tmp_path / "nats")
            history = History()
            with start_nats(tmp_path / "nats", port=port):
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(history.record(node)) for node in (a, b)]
                    back = {group.create_task(until_epoch(node, 6)) for node in (a, b)}
                    await asyncio.wait(back, return_when=asyncio.FIRST_COMPLETED)
                    for task in [*tasks, *back]:
                        task.cancel()
                history.look()
                history.check()
                assert len(leaders([a, b])) == 1
                (leader,) = leaders([a, b])
                # Who took over says so a moment after it leads.
                async with asyncio.timeout(4 * TTL):
                    while (reply := await b.elector.current(deadline=soon())).preferred != leader:  # noqa: ASYNC110 - a key
                        await asyncio.sleep(0)
                assert reply.policy is Policy.AUTO


async def test_a_node_that_starts_on_a_wiped_store_waits_for_a_holder_that_may_still_act(nats_url: str) -> None:
    async with candidate(nats_url, "a", stands=Freshness(3, 9, 3, 9, 4)) as a:
        assert await a.until(Role.PRIMARY) >= TTL - 0.1
        assert a.elector.epoch_for_commit() == 5


async def test_an_entry_that_an_operator_deletes_is_not_taken_while_its_holder_may_act(nats_url: str, bus: Bus) -> None:
    async with candidate(nats_url, "a") as a, candidate(nats_url, "b", policy=Policy.AUTO, grace_seconds=0.0) as b:
        await a.until(Role.PRIMARY)
        await b.until_it_sees("a")
        await Kv(bus, buckets.LEADERSHIP).delete(PROJECT, deadline=soon())
        await b.stays(Role.SECONDARY, seconds=TTL)
        await a.until(Role.PRIMARY)
        assert a.elector.epoch_for_commit() == 2


async def test_of_two_machines_with_one_node_id_one_leads_at_a_time(nats_url: str) -> None:
    async with candidate(nats_url, "copied") as card, candidate(nats_url, "copied") as copy:
        await card.until(Role.PRIMARY)
        await copy.stays(Role.SECONDARY, seconds=TTL / 2)
        await card.kill()
        assert not card.leads
        assert await copy.until(Role.PRIMARY) <= TTL + 1.0
        assert copy.elector.epoch_for_commit() >= 2


async def test_a_lost_bucket_is_made_again(nats_url: str, bus: Bus) -> None:
    async with candidate(nats_url, "a") as a, candidate(nats_url, "b") as b:
        await a.until(Role.PRIMARY)
        await b.until_it_sees("a")
        for bucket in (buckets.LEADERSHIP, buckets.EPOCHS, buckets.SETTINGS):
            await bus.request(f"$JS.API.STREAM.DELETE.KV_{bucket.name}", deadline=soon())
        await until_epoch(a, 2)
        await a.elector.select(NodeId("b"), policy=None, issued_by="", deadline=soon())
        await b.until(Role.PRIMARY)
        assert b.elector.epoch_for_commit() > 2
