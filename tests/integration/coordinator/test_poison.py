"""Every field of every request of the runtime, with values that no database keeps, in one coordinator on each database.

Each is refused with the name of its field, or taken and readable; no other request notices, and the tenure goes on.
"""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec
from msgspec import Raw, inspect

from membridge.bus.kv import open_bucket
from membridge.bus.rpc import RpcClient
from membridge.worker.worker import AttemptResult
from schemas import buckets, subjects
from schemas.errors import ErrorReply
from schemas.fields import MOST_NUMBER
from schemas.leases import Lease, Order
from schemas.results import Metrics, ResultStatus
from schemas.subjects import Operation
from schemas.tasks import TaskRequest, TaskStatus
from schemas.wire import MAX_BODY_BYTES, Wire, decode
from tests.fixtures.tasks import OpenPlace, Place, Runner, echo, soon
from tests.wire.golden import example

POISON = {
    "2^63": b"9223372036854775808",
    "2^63 as float": b"9.223372036854775808e18",
    "-1": b"-1",
    "NUL": rb'"a\u0000b"',
    "half a pair": rb'"\ud800"',
    "empty": b'""',
    "1 MiB": b"",
    "wrong type": b"[[true]]",
}
#: Refusals that must name the field; others are about the task, the lease or the speaker that it names.
NAMED = {400, 413}

Path = tuple[str | int, ...]


@dataclass(slots=True)
class Stage:
    """A place with a worker that never ends what it takes, and one that does; `running` is a lease of the first."""

    place: Place
    holder: Runner
    running: Lease | None = None
    served: int = 0
    over: asyncio.Event = field(default_factory=asyncio.Event)

    async def lease(self) -> Lease:
        """Return a live lease of the first worker."""
        if self.running is None:
            self.holder.publisher.touch()
            task = await self.place.submit(context=f"held {len(self.holder.orders)}", labels=["holder"])
            await self.place.until(task.id, TaskStatus.RUNNING)
            self.running = next(one.lease for one in self.holder.orders if one.task.id == task.id)
        return self.running

    async def serve_others(self) -> None:
        """Let one innocent task after another run, until it is over."""
        while not self.over.is_set():
            task = await self.place.submit("innocent", context="innocent", labels=["echo"])
            await self.place.until(task.id, TaskStatus.COMPLETED)
            self.served += 1

    async def body(self, operation: Operation[Wire, Wire]) -> dict[str, object]:
        """Return a body of the operation that is taken, with every field given."""
        if operation is subjects.SUBMIT:
            return {
                "context_id": "c", "agent_slug": "a", "prompt": "p", "context_hints": ["h"], "max_attempts": 2,
                "policy": {"timeout_sec": 60, "budget": 1}, "desired_format": "text", "priority": 1, "labels": ["none"],
                "not_before": "2026-01-01T00:00:00+00:00", "idempotency_key": None,
            }  # fmt: skip
        lease = await self.lease()
        whole: dict[str, object] = {
            "id": lease.task_id, "reason": "r", "task_id": lease.task_id, "lease_id": lease.id, "status": None,
            "context_id": "c", "limit": 1, "before": None, "worker_id": lease.worker_id, "entity_id": lease.task_id,
            "offset": 0, "start": 1, "index": 0, "text": "t",
        }  # fmt: skip
        if operation is subjects.REPORT:
            whole |= {
                "status": "success", "output": "o", "error_message": "e", "parts": 0, "session": "s",
                "metrics": {"duration_ms": 1, "tokens_used": 1},
            }  # fmt: skip
        if operation in {subjects.WORKER, subjects.DRAIN, subjects.RESUME}:
            whole["id"] = "nobody"
        if operation in {subjects.CANCEL, subjects.REQUEUE}:
            whole["id"] = (await self.place.submit(labels=["none"])).id
        # What is not known here is as the golden files have it.
        given = msgspec.json.decode(example(operation.request))
        return {name: whole.get(name, value) for name, value in given.items()}

    async def ask(self, operation: Operation[Wire, Wire], body: bytes) -> tuple[int, bytes]:
        """Send bytes; return the code of the error in the answer, 0 for none, and the answer."""
        worker = {"worker": "holder"} if operation in subjects.REPORTING_OPERATIONS else {}
        reply = await self.place.bus.request(operation.at(**worker), body, deadline=soon())
        return int(reply.headers.get("Nats-Service-Error-Code", "0")), reply.body


def paths(kind: type[msgspec.Struct]) -> Iterator[Path]:
    """Yield the path of each field of a request, of those of its structs, and of the first item of each list."""
    for one in msgspec.structs.fields(kind):
        yield from _paths(inspect.type_info(one.type), (one.encode_name,))


def _paths(info: inspect.Type, path: Path) -> Iterator[Path]:
    yield path
    for part in info.types if isinstance(info, inspect.UnionType) else (info,):
        while isinstance(part, inspect.Metadata):
            part = part.type  # noqa: PLW2901 - what it wraps
        if isinstance(part, inspect.StructType):
            for one in part.fields:
                yield from _paths(one.type, (*path, one.encode_name))
        elif isinstance(part, inspect.ListType):
            yield (*path, 0)


def spelt(path: Path) -> str:
    """Return a path as a refusal names it."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def poisoned(body: dict[str, object], path: Path, value: bytes) -> bytes:
    """Return the JSON of `body` with `value` at `path`; no value is a text that makes it as long as a body may be."""
    whole = msgspec.json.decode(msgspec.json.encode(body))
    inner = whole
    for part in path[:-1]:
        inner = inner[part]
    if value:
        inner[path[-1]] = Raw(value)
        return msgspec.json.encode(whole)
    inner[path[-1]] = ""
    inner[path[-1]] = "x" * (MAX_BODY_BYTES - len(msgspec.json.encode(whole)))
    return msgspec.json.encode(whole)


async def check_taken(stage: Stage, operation: Operation[Wire, Wire], sent: bytes, path: Path, answer: bytes) -> None:
    """What was taken is there, as it was sent."""
    if operation is subjects.SUBMIT:
        task = await stage.place.task(msgspec.json.decode(answer)["id"])
        there, given = msgspec.to_builtins(task), msgspec.json.decode(sent)
        for part in path:
            there, given = there[part], given[part]
        assert there == given or path[0] == "not_before"
    elif operation in {subjects.REPORT, subjects.HAND_BACK}:
        given = msgspec.json.decode(sent)
        if operation is subjects.REPORT and given["status"] == "success":
            reply = await RpcClient(stage.place.bus).request(
                subjects.RESULT, TaskRequest(id=given["task_id"]), deadline=soon()
            )
            assert reply.artifact is not None
            assert (reply.artifact.content or "") == given["output"][: len(reply.artifact.content or "")]
        stage.running = None


async def test_poison_in_any_field_is_refused_by_name_or_kept_and_nobody_else_notices(opened: OpenPlace) -> None:
    async def endless(order: Order) -> AttemptResult:
        del order
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    async with opened() as place:
        await place.coordinator()
        holder = await place.worker("holder", endless, at_once=32, labels=("holder",))
        await place.worker("echo", echo, labels=("echo",))
        stage, wrong = Stage(place, holder), list[str]()
        async with asyncio.TaskGroup() as group:
            group.create_task(stage.serve_others())
            for operation in subjects.RUNTIME_OPERATIONS:
                for path in paths(operation.request):
                    for name, value in POISON.items():
                        sent = poisoned(await stage.body(operation), path, value)
                        code, answer = await stage.ask(operation, sent)
                        what = f"{operation.name} {spelt(path)} {name}: {code} {answer[:300]!r}"
                        if code == 0:
                            await check_taken(stage, operation, sent, path, answer)
                        elif code in NAMED:
                            named = decode(answer, ErrorReply).field or ""
                            wrong += [] if named.startswith(spelt(path)) else [what]
                        elif code >= 500:
                            wrong.append(what)
            stage.over.set()
        assert wrong == []
        scheduling = await open_bucket(place.bus, buckets.SCHEDULING, replicas=1, deadline=soon())
        now = await scheduling.get("tasks", deadline=soon())
        assert now is not None
        assert now.value.epoch == 1, "the tenure is the first one"
        assert stage.served > 0


async def test_what_a_program_prints_costs_no_result(opened: OpenPlace) -> None:
    async def speak(order: Order) -> AttemptResult:
        metrics = Metrics(duration_ms=2**70, tokens_used=2**70)
        if order.task.prompt == "break":
            raise ZeroDivisionError("of nobody's making")
        if order.task.prompt == "fail":
            return AttemptResult(ResultStatus.ERROR, metrics, error_message="a\0b\ud800" * 3_000, session="\0" * 500)
        return AttemptResult(ResultStatus.SUCCESS, metrics, output=order.task.prompt + "\0|\udfff", session="x" * 500)

    async with opened() as place:
        await place.coordinator()
        await place.worker("w1", speak)
        for size in (1, 200_000):
            task = await place.submit("a" * size, context=f"{size}")
            await place.until(task.id, TaskStatus.COMPLETED)
            reply = await RpcClient(place.bus).request(subjects.RESULT, TaskRequest(id=task.id), deadline=soon())
            assert reply.artifact is not None
            assert reply.artifact.content == "a" * size + "\ufffd|\ufffd"
            assert reply.result is not None
            assert reply.result.metrics == Metrics(duration_ms=MOST_NUMBER, tokens_used=MOST_NUMBER)
        failed = await place.submit("fail", max_attempts=1, context="failed")
        dead = await place.until(failed.id, TaskStatus.DEAD)
        assert dead.reason.startswith("a\ufffdb\ufffda\ufffdb")
        # An error of the worker's own ends the attempt, and not the worker.
        broken = await place.submit("break", max_attempts=1, context="broken")
        dead = await place.until(broken.id, TaskStatus.DEAD)
        assert dead.reason == "the worker could not run the task: ZeroDivisionError: of nobody's making"
        after = await place.submit("after", context="after")
        await place.until(after.id, TaskStatus.COMPLETED)
