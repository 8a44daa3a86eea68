"""Orders go to a worker many in one message, and each one has its own answer. On each database."""

import asyncio
import random
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from membridge.aio.deadline import Deadline
from membridge.bus.service import Call, Endpoint, ServiceIdentity, serve
from membridge.errors import BusUnavailableError
from schemas import subjects
from schemas.identity import NodeId
from schemas.leases import Accepted, LeaseClaim, Order, OrderAnswers, Orders
from schemas.node import Empty, NodePresence
from schemas.tasks import Task, TaskSpec, TaskStatus
from schemas.wire import encode
from schemas.workers import Capabilities, WorkerPresence, WorkerStatus, WorkerStatusReply
from services.coordinator import carrier
from services.coordinator.engine.state import Limits
from services.coordinator.store.migrations import MIGRATIONS
from services.database.engine import open_engine, parse_url
from tests.fixtures.tasks import SOON, OpenPlace
from tests.integration.coordinator.gates import Unreadable
from tests.integration.coordinator.histories import AcceptingPort, History, answered

RUNNING = TaskStatus.RUNNING
YES, NO = Accepted(accepted=True), Accepted(accepted=False, reason="it has no room")


class Workers(AcceptingPort):
    """Workers that note each message, and reject the tasks of some contexts, or whose answer to them is lost."""

    def __init__(self) -> None:
        super().__init__()
        self.messages: list[tuple[str, list[str]]] = []
        self.rejects: set[str] = set()
        self.loses: set[str] = set()
        self.stopped: list[str] = []

    async def send(self, worker_id: str, orders: Sequence[Order]) -> Sequence[Accepted]:
        contexts = [order.task.context_id for order in orders]
        self.messages.append((worker_id, contexts))
        await super().send(worker_id, orders)
        if lost := self.loses & {*contexts}:
            self.loses -= lost
            raise BusUnavailableError("the answer was lost")
        return [NO if context in self.rejects else YES for context in contexts]

    async def stop(self, claim: LeaseClaim) -> None:
        self.stopped.append(claim.lease_id)


@asynccontextmanager
async def history_on(url: str, folder: Path, port: Workers) -> AsyncGenerator[History]:
    async with (
        open_engine(parse_url(url, folder / "x"), MIGRATIONS, deadline=Deadline.after(30.0)) as engine,
        asyncio.timeout(3 * SOON),
        asyncio.TaskGroup() as group,
    ):
        history = History(engine, port, group, random.Random(1), Limits())
        history.queries = Unreadable(engine)
        await history.begin()
        yield history
        await history.kill()


async def submitted(history: History, *contexts: str, prompt: str = "p") -> list[Task]:
    """Submit tasks in one transaction."""
    async with asyncio.TaskGroup() as group:
        asked = [
            group.create_task(
                answered(history.runtime.submit(TaskSpec(context_id=name, agent_slug="x", prompt=prompt), actor="test"))
            )
            for name in contexts
        ]
    return [one.result() for one in asked]


async def until_run(history: History, *tasks: Task) -> None:
    """Wait until tasks run."""
    for task in tasks:
        while (await history.state()).tasks[task.id].status is not RUNNING:  # noqa: ASYNC110 - no event tells
            await asyncio.sleep(0)


async def test_what_is_decided_together_goes_in_one_message_to_each_worker(database_url: str, tmp_path: Path) -> None:
    port = Workers()
    async with history_on(database_url, tmp_path, port) as history:
        await until_run(history, *await submitted(history, "a", "b", "c", "d"))
        assert sorted((worker, len(contexts)) for worker, contexts in port.messages) == [("w1", 2), ("w2", 2)]
        assert sorted(name for _, contexts in port.messages for name in contexts) == ["a", "b", "c", "d"]
        await history.agree()


async def test_prompts_that_no_message_holds_together_go_in_several(database_url: str, tmp_path: Path) -> None:
    port = Workers()
    async with history_on(database_url, tmp_path, port) as history:
        tasks = await submitted(history, "a", "b", "c", "d", prompt="p" * (carrier.TOGETHER // 2 + 1))
        await until_run(history, *tasks)
        assert [len(contexts) for _, contexts in port.messages] == [1, 1, 1, 1]
        assert {len(order.task.prompt) for order in port.orders} == {carrier.TOGETHER // 2 + 1}


async def test_one_that_is_rejected_among_many_goes_elsewhere_and_the_others_run(
    database_url: str, tmp_path: Path
) -> None:
    port = Workers()
    port.rejects = {"b"}
    async with history_on(database_url, tmp_path, port) as history:
        tasks = {task.context_id: task for task in await submitted(history, "a", "b", "c", "d")}
        await until_run(history, *(task for name, task in tasks.items() if name != "b"))
        state = await history.applied()
        # Its worker is asked no more until it is heard of again, and the other one is full.
        back = state.tasks[tasks["b"].id]
        assert (back.status, back.attempts, back.interruptions) == (TaskStatus.QUEUED, 0, 1)
        rejected_by = next(worker for worker, contexts in port.messages if "b" in contexts)
        assert back.reason == f"{rejected_by} did not take it: it has no room"
        assert state.workers[rejected_by].worker.status is WorkerStatus.UNKNOWN
        assert port.stopped == []
        port.rejects = set()
        history.hear(rejected_by)
        await until_run(history, tasks["b"])
        assert port.messages[-1] == (rejected_by, ["b"])
        await history.agree()


async def test_a_lost_answer_takes_all_of_its_message_back_and_stops_what_may_run(
    database_url: str, tmp_path: Path
) -> None:
    port = Workers()
    port.loses = {"a"}
    async with history_on(database_url, tmp_path, port) as history:
        tasks = {task.context_id: task for task in await submitted(history, "a", "b", "c", "d")}
        lost = next(contexts for _, contexts in port.messages if "a" in contexts)
        await until_run(history, *(task for name, task in tasks.items() if name not in lost))
        state = await history.applied()
        assert {state.tasks[tasks[name].id].status for name in lost} == {TaskStatus.QUEUED}
        assert {*port.stopped} == {order.lease.id for order in port.orders if order.task.context_id in lost}
        for name in ("w1", "w2"):
            history.hear(name)
        await until_run(history, *tasks.values())
        await history.agree()


async def test_one_that_cannot_be_read_hinders_no_other(database_url: str, tmp_path: Path) -> None:
    port = Workers()
    async with history_on(database_url, tmp_path, port) as history:
        await submitted(history, "a", "b", "c", "d")
        waiting = await submitted(history, "e", "f")
        await history.kill()
        queries = history.queries
        assert isinstance(queries, Unreadable)
        queries.failures = 1
        # A new tenure has no prompt in memory, so it reads each.
        await history.begin()
        for name in ("w3", "w4"):
            history.hear(name)
        await until_run(history, *waiting)
        state = await history.state()
        assert sorted(state.tasks[task.id].interruptions for task in waiting) == [0, 1]
        await history.agree()


async def test_a_worker_that_answers_too_few_has_taken_none_for_sure(opened: OpenPlace) -> None:
    messages, stopped, right = list[list[str]](), asyncio.Queue[str](), False

    async def run(orders: Orders, call: Call) -> OrderAnswers:
        messages.append([order.task.id for order in orders.orders])
        return OrderAnswers(answers=[YES for _ in orders.orders] if right else [YES])

    async def stop(claim: LeaseClaim, call: Call) -> Accepted:
        stopped.put_nowait(claim.task_id)
        return YES

    async def status(request: Empty, call: Call) -> WorkerStatusReply:
        return WorkerStatusReply(presence=said, running=[])

    name = NodeId("odd")
    said = WorkerPresence(capabilities=Capabilities(claude_cli=True, max_concurrency=2), status=WorkerStatus.ONLINE)
    presence = encode(NodePresence(node=name, version="0", python="", os="", arch="", started_at="1", worker=said))
    subject = subjects.fill(subjects.WORKER_PRESENCE, worker=name)
    endpoints = [
        Endpoint(operation, operation.at(worker=name), handler)  # type: ignore[arg-type]
        for operation, handler in ((subjects.RUN, run), (subjects.STOP, stop), (subjects.WORKER_STATUS, status))
    ]
    async with opened() as place, serve(place.bus, ServiceIdentity("odd", "0", ""), endpoints):
        await place.coordinator()
        tasks = [await place.submit("p", context) for context in ("a", "b")]
        await place.bus.publish(subject, presence)
        await place.until_known(name, WorkerStatus.UNKNOWN)
        for task in tasks:
            back = await place.task(task.id)
            assert (back.status, back.attempts, back.interruptions) == (TaskStatus.QUEUED, 0, 1)
        right = True
        await place.bus.publish(subject, presence)
        for task in tasks:
            assert (await place.until(task.id, RUNNING)).attempts == 1
        ids = {task.id for task in tasks}
        assert [{*one} for one in messages] == [ids, *({one} for one in messages[1] + messages[2])]
        assert {*messages[1], *messages[2]} == ids
        async with asyncio.timeout(SOON):
            assert {await stopped.get(), await stopped.get()} == ids
