"""Work queues and histories: nothing is lost by a consumer that goes away, nothing spins where one is missing."""

import asyncio
import time

import pytest

from membridge.aio.deadline import Deadline
from membridge.bus import jetstream
from membridge.bus.connection import Bus
from membridge.bus.streams import ensure_streams, last_per_subject, open_queue
from membridge.errors import ForbiddenError
from schemas import streams, subjects

PROJECT = "0" * 16
SUBJECT = subjects.fill(subjects.PROPOSAL, project=PROJECT, node="a")


def soon() -> Deadline:
    return Deadline.after(10.0)


async def test_streams_are_made_once_and_then_left_alone(bus: Bus) -> None:
    await bus.stream_publish(SUBJECT, b"1", message_id="m1", deadline=soon())
    await ensure_streams(bus, replicas=1, deadline=soon())
    assert (await jetstream.stream_state(bus, streams.PROPOSALS.name, deadline=soon())).messages == 1


async def test_what_is_acknowledged_is_gone_and_what_is_not_comes_again(bus: Bus) -> None:
    queue = await open_queue(bus, streams.PROPOSALS, "q", SUBJECT, deadline=soon())
    for number in range(3):
        await bus.stream_publish(SUBJECT, str(number).encode(), message_id=f"m{number}", deadline=soon())
    first = await queue.fetch(wait=2.0)
    assert [delivery.message.body for delivery in first] == [b"0", b"1", b"2"]
    await first[0].ack()
    await first[1].nak()
    await first[2].term("no good")
    again = await queue.fetch(wait=2.0)
    assert [(delivery.message.body, delivery.attempts) for delivery in again] == [(b"1", 2)]
    await again[0].ack()
    assert await queue.fetch(wait=0.1) == []


async def test_a_fetch_never_brings_more_than_a_batch_and_the_rest_waits(bus: Bus) -> None:
    queue = await open_queue(bus, streams.PROPOSALS, "q", SUBJECT, deadline=soon())
    for number in range(70):
        await bus.stream_publish(SUBJECT, b"x", message_id=f"m{number}", deadline=soon())
    sizes: list[int] = []
    while deliveries := await queue.fetch(wait=0.2):
        sizes.append(len(deliveries))
        for delivery in deliveries:
            await delivery.ack()
    assert sum(sizes) == 70
    assert max(sizes) <= 32


async def test_a_message_that_comes_later_is_delivered_at_once(bus: Bus) -> None:
    queue = await open_queue(bus, streams.PROPOSALS, "q", SUBJECT, deadline=soon())
    async with asyncio.TaskGroup() as group:
        fetching = group.create_task(queue.fetch(wait=5.0))
        await asyncio.sleep(0)
        began = time.monotonic()
        await bus.stream_publish(SUBJECT, b"late", message_id="late", deadline=soon())
    assert [delivery.message.body for delivery in fetching.result()] == [b"late"]
    assert time.monotonic() - began < 2.0


async def test_a_missing_consumer_is_made_again_and_does_not_spin(bus: Bus) -> None:
    queue = await open_queue(bus, streams.PROPOSALS, "q", SUBJECT, deadline=soon())
    await jetstream.delete_consumer(bus, streams.PROPOSALS.name, "q", deadline=soon())
    await bus.stream_publish(SUBJECT, b"kept", message_id="kept", deadline=soon())
    rounds = 0
    async with asyncio.timeout(10.0):
        while not (found := await queue.fetch(wait=0.5)):
            rounds += 1
    assert rounds < 10
    assert found[0].message.body == b"kept"


async def test_a_node_that_may_not_delete_its_consumer_uses_it_as_it_is(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    await open_queue(bus, streams.PROPOSALS, "q", SUBJECT, deadline=soon())
    tries: list[str] = []

    async def passes_over(*_: object, **__: object) -> bool:
        return True

    async def refused(_bus: Bus, _stream: str, name: str, **_: object) -> None:
        tries.append(name)
        raise ForbiddenError("Permissions Violation")

    monkeypatch.setattr(jetstream, "passes_over", passes_over)
    monkeypatch.setattr(jetstream, "delete_consumer", refused)
    queue = await open_queue(bus, streams.PROPOSALS, "q", SUBJECT, deadline=soon())
    assert await queue.fetch(wait=0.1) == []
    await bus.stream_publish(SUBJECT, b"1", message_id="m", deadline=soon())
    assert [one.message.body for one in await queue.fetch(wait=5.0)] == [b"1"]
    assert tries == ["q"]


async def test_a_repeated_publish_is_stored_once(bus: Bus) -> None:
    first = await bus.stream_publish(SUBJECT, b"x", message_id="same", deadline=soon())
    assert await bus.stream_publish(SUBJECT, b"x", message_id="same", deadline=soon()) == first


async def test_a_history_keeps_the_last_of_each_subject_newest_first(bus: Bus) -> None:
    for state in ("running", "done"):
        for job in ("one", "two", "three"):
            subject = subjects.fill(subjects.JOB, project=PROJECT, node="a", job=job)
            await bus.stream_publish(subject, state.encode(), message_id=f"{job}.{state}", deadline=soon())
    pattern = subjects.JOB.format(project=PROJECT, node="*", job="*")
    found = await last_per_subject(bus, streams.JOBS, pattern, limit=2, deadline=soon())
    assert [(message.headers["Nats-Subject"].rpartition(".")[2], message.body) for message in found] == [
        ("three", b"done"),
        ("two", b"done"),
    ]


@pytest.mark.parametrize("stream", streams.ALL, ids=lambda stream: stream.name)
async def test_every_stream_has_a_bound(bus: Bus, stream: streams.Stream) -> None:
    reply = await bus.request(f"$JS.API.STREAM.INFO.{stream.name}", deadline=soon())
    assert f'"max_bytes":{stream.max_bytes}'.encode() in reply.body
    assert b'"storage":"file"' in reply.body


async def test_a_job_that_moved_on_is_as_new_as_its_last_state_in_a_history_of_any_length(bus: Bus) -> None:
    def subject(job: int) -> str:
        return subjects.fill(subjects.JOB, project=PROJECT, node="a", job=f"j{job}")

    for state, jobs in (("running", range(600)), ("done", (3, 1))):
        for job in jobs:
            await bus.stream_publish(subject(job), state.encode(), message_id=f"{job}.{state}", deadline=soon())
    pattern = subjects.JOB.format(project=PROJECT, node="*", job="*")
    found = await last_per_subject(bus, streams.JOBS, pattern, limit=3, deadline=soon())
    assert [(message.headers["Nats-Subject"].rpartition(".")[2], message.body) for message in found] == [
        ("j1", b"done"),
        ("j3", b"done"),
        ("j599", b"running"),
    ]
