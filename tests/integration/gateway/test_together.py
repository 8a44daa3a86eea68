"""Many callers at once share requests to a coordinator; each has the answer that it would have had alone."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import msgspec
import pytest

from membridge.bus.connection import Bus
from membridge.bus.message import Message
from membridge.embedded.nats_server import NatsServer
from schemas import subjects
from schemas.tasks import MOST_TOGETHER, SHORT
from schemas.web import Role
from services.web.limits import RateLimit
from tests.fixtures.gateway import Gateway, gateway_of
from tests.fixtures.tasks import OpenPlace
from tests.fixtures.toy_web import Answer

AT, COUNT = "/api/runtime/llm-tasks", 150
UNKNOWN = "01234567-89ab-4cde-8f01-23456789abcd"
Body = dict[str, object]


@pytest.fixture(autouse=True)
def any_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rates of callers have tests of their own."""
    monkeypatch.setattr(RateLimit, "take", lambda *_: None)


def spec(number: int, **more: object) -> Body:
    return {"context_id": f"c{number % 7}", "agent_slug": "helper", "prompt": f"prompt {number}", **more}


async def all_of(gateway: Gateway, *asked: tuple[str, str, Body | None], key: str = "") -> list[Answer]:
    """Send requests at once and return the answers in their order."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(gateway.ask(method, path, body, key=key)) for method, path, body in asked]
    return [task.result() for task in tasks]


@asynccontextmanager
async def heard(bus: Bus, operation: str) -> AsyncGenerator[list[Message]]:
    """Collect the requests of an operation during the body."""
    found: list[Message] = []

    async with bus.subscribe(f"membridge.runtime.{operation}", bound=10_000) as news:
        yield found
        while (message := news.next_nowait()) is not None:
            found.append(message)


async def test_each_of_many_gets_its_own_task_and_reads_what_it_submitted(
    opened: OpenPlace, nats_server: NatsServer
) -> None:
    async with opened() as place, gateway_of(place.bus, nats_server.url, place.settings.node.state_dir) as gateway:
        await place.coordinator()
        async with heard(place.bus, "submit_tasks") as submits, heard(place.bus, "read_tasks") as reads:
            made = await all_of(gateway, *(("POST", AT, spec(number)) for number in range(COUNT)))
            assert {one.status for one in made} == {201}
            tasks = [msgspec.json.decode(one.body) for one in made]
            assert [task["prompt"] for task in tasks] == [f"prompt {number}" for number in range(COUNT)]
            read = await all_of(gateway, *(("GET", f"{AT}/{task['id']}", None) for task in tasks))
            assert [msgspec.json.decode(one.body)["id"] for one in read] == [task["id"] for task in tasks]
        # They did go together: this test would prove nothing otherwise.
        assert 0 < len(submits) < COUNT / 2
        assert 0 < len(reads) < COUNT / 2
        listed = await gateway.get(f"{AT}?limit=200")
        assert {task["id"] for task in listed["tasks"]} == {task["id"] for task in tasks}


async def test_what_was_submitted_or_changed_is_seen_by_the_next_read_under_load(
    opened: OpenPlace, nats_server: NatsServer
) -> None:
    async with opened() as place, gateway_of(place.bus, nats_server.url, place.settings.node.state_dir) as gateway:
        await place.coordinator()

        async def lives(number: int) -> None:
            task = await gateway.post(AT, spec(number), status=201)
            at = f"{AT}/{task['id']}"
            assert (await gateway.get(at))["status"] == "queued"
            await gateway.post(f"{at}/cancel", {"reason": f"reason {number}"})
            ended = await gateway.get(at)
            assert (ended["status"], ended["reason"]) == ("dead", f"reason {number}")

        async with asyncio.TaskGroup() as group:
            for number in range(60):
                group.create_task(lives(number))


async def test_after_the_news_of_a_completion_a_read_shows_it(opened: OpenPlace, nats_server: NatsServer) -> None:
    async with opened() as place, gateway_of(place.bus, nats_server.url, place.settings.node.state_dir) as gateway:
        await place.coordinator()
        pattern = subjects.TASK_EVENT.format(task="*", kind="status", by=subjects.COORDINATOR)
        async with place.bus.subscribe(pattern, bound=10_000) as news, asyncio.TaskGroup() as group:
            tasks = await all_of(gateway, *(("POST", AT, spec(number)) for number in range(40)))
            ids = {msgspec.json.decode(one.body)["id"] for one in tasks}

            async def work() -> None:
                for _ in ids:
                    order = (await gateway.post("/api/runtime/leases", {"worker_id": "http-1"}))["order"]
                    body = {"worker_id": "http-1", "lease_id": order["lease"]["id"], "output": "done"}
                    await gateway.post(f"{AT}/{order['task']['id']}/complete", body)

            group.create_task(work())
            completed: set[str] = set()
            async with asyncio.timeout(60.0):
                while completed != ids:
                    event = msgspec.json.decode((await news.next()).body)
                    if event["status"] == "completed":
                        assert (await gateway.get(f"{AT}/{event['task_id']}"))["status"] == "completed"
                        completed.add(event["task_id"])


async def test_one_that_is_refused_refuses_no_other(opened: OpenPlace, nats_server: NatsServer) -> None:
    async with opened() as place, gateway_of(place.bus, nats_server.url, place.settings.node.state_dir) as gateway:
        await place.coordinator()
        wanted = [spec(number, **({"not_before": "soon"} if number % 3 == 0 else {})) for number in range(60)]
        made = await all_of(gateway, *(("POST", AT, one) for one in wanted))
        assert [one.status for one in made] == [400 if number % 3 == 0 else 201 for number in range(60)]
        assert made[0].error.field == "not_before"
        good = [msgspec.json.decode(one.body)["id"] for one in made if one.status == 201]
        # Those that do not exist, and a long one, are among those that are read together.
        long = (await gateway.post(AT, spec(1, prompt="ü" * (SHORT + 1)), status=201))["id"]
        paths = [f"{AT}/{one}" for pair in zip(good, [UNKNOWN] * len(good), strict=True) for one in (*pair, long)]
        read = await all_of(gateway, *(("GET", path, None) for path in paths))
        assert [one.status for one in read] == [200, 404, 200] * len(good)
        assert len(msgspec.json.decode(read[2].body)["prompt"]) == SHORT + 1
        assert read[1].error.detail == f"there is no task {UNKNOWN}"


async def test_the_same_key_twice_at_once_is_one_task(opened: OpenPlace, nats_server: NatsServer) -> None:
    async with opened() as place, gateway_of(place.bus, nats_server.url, place.settings.node.state_dir) as gateway:
        await place.coordinator()
        same = [("POST", AT, spec(number, idempotency_key=f"k{number % 5}")) for number in range(60)]
        made = [msgspec.json.decode(one.body)["id"] for one in await all_of(gateway, *same)]
        assert len(set(made)) == 5
        assert [made[number] for number in range(60)] == [made[number % 5] for number in range(60)]


async def test_the_audit_names_each_caller_of_those_that_went_together(
    opened: OpenPlace, nats_server: NatsServer
) -> None:
    async with opened() as place, gateway_of(place.bus, nats_server.url, place.settings.node.state_dir) as gateway:
        await place.coordinator()
        keys = [await gateway.key(Role.OPERATOR, "tasks") for _ in range(2)]
        async with asyncio.TaskGroup() as group:
            sent = [
                group.create_task(all_of(gateway, *(("POST", AT, spec(number)) for number in range(30)), key=key))
                for key in keys
            ]
        ids = [{msgspec.json.decode(one.body)["id"] for one in each.result()} for each in sent]
        records = (await gateway.get("/api/runtime/audit?limit=200"))["records"]
        for key, mine in zip(keys, ids, strict=True):
            actor = f"key:{key.split('_')[1]}@gateway"
            assert {one["entity_id"] for one in records if one["actor"] == actor} == mine


async def test_without_a_coordinator_each_is_told_so(opened: OpenPlace, nats_server: NatsServer) -> None:
    async with opened() as place, gateway_of(place.bus, nats_server.url, place.settings.node.state_dir) as gateway:
        asked = [*(("POST", AT, spec(1)) for _ in range(10)), *(("GET", f"{AT}/{UNKNOWN}", None) for _ in range(10))]
        answers = await all_of(gateway, *asked)
        assert {one.status for one in answers} == {503}
        assert {one.error.detail for one in answers} == {"no coordinator answers: tasks need one"}
    assert MOST_TOGETHER > 10
