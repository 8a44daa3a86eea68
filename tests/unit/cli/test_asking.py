"""Commands against a node that answers on a real NATS server, and against nobody."""

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from membridge.aio.deadline import Deadline
from membridge.bus.connection import Bus
from membridge.bus.kv import open_bucket
from membridge.bus.service import Call, Endpoint, ServiceIdentity, serve
from membridge.errors import PrimaryPullRefusedError, SecondaryPushBlockedError
from schemas import subjects
from schemas.buckets import NODES
from schemas.events import Progress, encode_event
from schemas.identity import NodeId, canonical_id
from schemas.leadership import LeadershipReply, Policy, Role, SelectRequest
from schemas.node import (
    AddProjectRequest,
    Check,
    DoctorReply,
    Empty,
    Finding,
    NodePresence,
    ProjectPresence,
    ProjectsReply,
    StatusReply,
)
from schemas.proposal import QuarantineAction, QuarantineReply
from schemas.snapshot import PullReply, PullRequest, PushOutcome, PushReply, PushRequest
from schemas.subjects import Operation
from schemas.wire import Wire

NODE = NodeId("pi")
PROJECT = canonical_id("claude-mem")


@dataclass
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


Run = Callable[..., Awaitable[Ended]]
Handler = Callable[..., Awaitable[Wire]]


@pytest.fixture
def environ(nats_url: str, tmp_path: Path) -> dict[str, str]:
    """The environment of a user with an empty home, on this test's server."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path / "home"),
        "COLUMNS": "80",
        "MEMBRIDGE_NATS_URL": nats_url,
        "MEMBRIDGE_NODE_ID": NODE,
    }


@pytest.fixture
def start(environ: dict[str, str]) -> Callable[..., Awaitable[Process]]:
    """Start `membridge` as a process of its own."""

    def process(*arguments: str) -> Awaitable[Process]:
        command = (sys.executable, "-m", "membridge.cli.main", *arguments)
        return asyncio.create_subprocess_exec(*command, env=environ, stdout=PIPE, stderr=PIPE)

    return process


@pytest.fixture
def run(start: Callable[..., Awaitable[Process]]) -> Run:
    """Run `membridge` to its end."""

    async def process(*arguments: str) -> Ended:
        started = await start(*arguments)
        async with asyncio.timeout(30):
            out, err = await started.communicate()
        return Ended(started.returncode or 0, out.decode(), err.decode())

    return process


def answering(
    bus: Bus, operation: Operation[Wire, Wire], handler: Handler, **tokens: str
) -> AbstractAsyncContextManager[object]:
    """Answer `operation` as the daemon of this node would."""
    endpoint = Endpoint(operation=operation, subject=operation.at(**tokens), handler=handler)
    return serve(bus, ServiceIdentity(name="node", version="0.1.0", description="", metadata={}), [endpoint])


async def test_a_push_is_done_by_the_daemon(bus: Bus, run: Run) -> None:
    asked: list[PushRequest] = []

    async def push(request: PushRequest, _call: Call) -> PushReply:
        asked.append(request)
        return PushReply(outcome=PushOutcome.COMMITTED, seq=7, rows=3)

    async with answering(bus, subjects.PUSH, push, project=PROJECT, node=NODE):
        text = await run("push", "--allow-shrink")
        compat = await run("push_sqlite", "--json")

    assert (text.code, text.err) == (0, "")
    assert text.out == "committed snapshot 7 (3 rows, 0 B in 0.0 s)\n"
    assert json.loads(compat.out)["seq"] == 7
    assert asked == [PushRequest(allow_shrink=True), PushRequest(snapshot=True)]


async def test_a_refused_pull_exits_with_2_and_says_what_to_do(bus: Bus, run: Run) -> None:
    async def pull(request: PullRequest, _call: Call) -> PullReply:
        assert request.replace
        raise PrimaryPullRefusedError("this node is primary", remedy="push first")

    async with answering(bus, subjects.PULL, pull, project=PROJECT, node=NODE):
        text = await run("pull_sqlite")
        as_json = await run("pull", "--replace", "--json")

    assert (text.code, text.out, text.err) == (2, "", "error: this node is primary\n  remedy: push first\n")
    assert (as_json.code, as_json.err) == (2, "")
    assert json.loads(as_json.out)["code"] == "primary_pull_refused"


async def test_a_blocked_push_exits_with_3(bus: Bus, run: Run) -> None:
    async def push(_request: PushRequest, _call: Call) -> PushReply:
        raise SecondaryPushBlockedError("this node is not primary")

    async with answering(bus, subjects.PUSH, push, project=PROJECT, node=NODE):
        assert (await run("push", "--snapshot")).code == 3


async def test_progress_of_the_daemon_is_shown_as_plain_lines(
    bus: Bus, start: Callable[..., Awaitable[Process]]
) -> None:
    subject = subjects.fill(subjects.PROGRESS, project=PROJECT, node=NODE)
    seen = asyncio.Event()

    async def push(_request: PushRequest, _call: Call) -> PushReply:
        for kind, step in (("pull", "not ours"), ("push", "copy")):
            event = Progress(
                project=PROJECT, node=NODE, at=datetime.now(UTC).isoformat(), job_id="j", kind=kind, step=step,
                done=1, total=4,
            )  # fmt: skip
            await bus.publish(subject, encode_event(event))
        await seen.wait()
        return PushReply(outcome=PushOutcome.UNCHANGED)

    async with answering(bus, subjects.PUSH, push, project=PROJECT, node=NODE), asyncio.timeout(30):
        command = await start("push")
        assert command.stderr is not None
        line = await command.stderr.readline()
        seen.set()
        out, err = await command.communicate()

    assert line == b"push: copy 25 %\n"
    assert (out, err) == (b"nothing to push: every row is shared or proposed already\n", b"")


async def test_status_of_another_project_is_asked_by_its_name(bus: Bus, run: Run) -> None:
    project = canonical_id("work")

    async def status(_request: Empty, _call: Call) -> StatusReply:
        presence = ProjectPresence(project=project, name="work", role=Role.SECONDARY)
        return StatusReply(node=NODE, version="0.1.0", project=presence)

    async with answering(bus, subjects.STATUS, status, project=project, node=NODE):
        ended = await run("status", "--project", "work")

    assert ended.code == 0
    assert f"project   work ({project})" in ended.out


async def test_a_project_that_this_node_does_not_serve_is_an_error(bus: Bus, run: Run) -> None:
    ended = await run("backups", "--project", "nobody's", "--json")

    assert ended.code == 1
    found = json.loads(ended.out)
    assert (found["code"], found["field"]) == ("not_found", "project")
    assert "membridge project add" in found["remedy"]


@pytest.mark.parametrize("arguments", [("leader",), ("leader", "resign")])
async def test_what_only_a_daemon_knows_says_how_to_start_one(bus: Bus, run: Run, arguments: tuple[str, ...]) -> None:
    ended = await run(*arguments)

    assert ended.code == 1
    assert ended.err == (
        "error: no daemon of node pi answers\n  remedy: start it with `membridge up` or `membridge node`\n"
    )


async def test_without_nats_the_error_says_how_to_start_it(environ: dict[str, str], run: Run) -> None:
    environ["MEMBRIDGE_NATS_URL"] = "nats://user:hunter2@127.0.0.1:1"

    ended = await run("push")

    assert ended.code == 1
    assert len(ended.err.splitlines()) == 2
    assert "membridge up" in ended.err
    assert "hunter2" not in ended.err


async def test_the_doctor_reports_that_nats_is_away(environ: dict[str, str], run: Run) -> None:
    environ["MEMBRIDGE_NATS_URL"] = "nats://127.0.0.1:1"

    ended = await run("doctor", "--json")

    assert ended.code == 1
    found = {check["name"]: check["finding"] for check in json.loads(ended.out)["checks"]}
    assert {name for name, finding in found.items() if finding == "skipped"} == {
        "jetstream", "object store", "encryption", "lock", "leadership", "clock", "gateway",
    }  # fmt: skip
    assert (found["nats"], found["disk"], found["settings"], found["daemon"]) == ("fail", "ok", "ok", "warn")


@pytest.mark.parametrize(("finding", "code"), [(Finding.WARN, 0), (Finding.FAIL, 1)])
async def test_the_doctor_fails_only_for_a_failure(bus: Bus, run: Run, finding: Finding, code: int) -> None:
    async def doctor(_request: Empty, _call: Call) -> DoctorReply:
        return DoctorReply(checks=[Check(name="disk", finding=finding, detail="nearly full", remedy="free some")])

    async with answering(bus, subjects.DOCTOR, doctor, project=PROJECT, node=NODE):
        ended = await run("doctor")

    assert ended.code == code
    assert "-> free some" in ended.out


async def test_nodes_are_read_from_the_bucket(bus: Bus, run: Run) -> None:
    bucket = await open_bucket(bus, NODES, replicas=1, deadline=Deadline.after(5.0))
    presence = NodePresence(node=NODE, version="0.1.0", python="3.11", os="Linux", arch="aarch64")
    await bucket.create(NODE, presence, deadline=Deadline.after(5.0))

    assert json.loads((await run("nodes", "--json")).out)["nodes"][0]["node"] == NODE
    assert "pi" in (await run("nodes")).out


async def test_selecting_a_leader_names_the_operator(bus: Bus, run: Run) -> None:
    asked: list[SelectRequest] = []
    by: list[str] = []

    async def select(request: SelectRequest, call: Call) -> LeadershipReply:
        asked.append(request)
        by.append(call.by)
        return LeadershipReply(preferred=request.node)

    async with answering(bus, subjects.LEADERSHIP_SELECT, select, project=PROJECT):
        ended = await run("leader", "select", "laptop", "--policy", "auto")
        wrong = await run("leader", "select", "lap.top")

    assert "preferred  laptop" in ended.out
    assert asked[0].node == "laptop"
    assert asked[0].policy is Policy.AUTO
    assert by[0].endswith(f"@{NODE}")
    assert (wrong.code, len(asked)) == (1, 1)
    assert "'lap.top' is not allowed" in wrong.err


async def test_quarantined_items_are_retried_by_id(bus: Bus, run: Run) -> None:
    asked: list[QuarantineAction] = []

    async def quarantine(request: QuarantineAction, _call: Call) -> QuarantineReply:
        asked.append(request)
        return QuarantineReply()

    async with answering(bus, subjects.QUARANTINE, quarantine, project=PROJECT, node=NODE):
        assert (await run("quarantine")).out == "the quarantine is empty\n"
        assert (await run("quarantine", "retry", "ab12")).code == 0

    assert asked == [QuarantineAction(action="list"), QuarantineAction(action="retry", id="ab12")]


async def test_a_project_is_added_by_the_daemon_or_for_its_next_start(bus: Bus, run: Run, tmp_path: Path) -> None:
    asked: list[AddProjectRequest] = []

    async def add(request: AddProjectRequest, _call: Call) -> ProjectsReply:
        asked.append(request)
        return ProjectsReply()

    database = tmp_path / "it's ünïcode.db"
    async with answering(bus, subjects.ADD_PROJECT, add, node=NODE):
        assert (await run("project", "add", "work", "--database", str(database))).code == 0
    assert asked == [AddProjectRequest(name="work", database=str(database))]

    added = await run("project", "add", "work", "--database", str(database), "--json")
    listed = await run("project", "--json")

    assert added.code == 0
    assert listed.out == added.out
    assert [item["name"] for item in json.loads(listed.out)["projects"]] == ["claude-mem", "work"]
    # What was not looked at is not claimed.
    told = await run("project")
    assert told.err == "no daemon answers: it serves the project after its next start\n"
    assert [line.split()[2:4] for line in told.out.splitlines()[2:]] == [["?", "?"], ["?", "?"]], told.out


async def test_a_project_that_is_not_served_says_why_and_no_numbers(bus: Bus, run: Run) -> None:
    async def projects(_request: Empty, _call: Call) -> ProjectsReply:
        lame = ProjectPresence(project=PROJECT, name="claude-mem", role=Role.NONE, error="its database is damaged")
        return ProjectsReply(projects=[lame])

    async with answering(bus, subjects.PROJECTS, projects, node=NODE):
        told = await run("project")

    assert (told.code, told.err) == (0, "claude-mem: its database is damaged\n")
    assert told.out.splitlines()[2].split()[2:4] == ["?", "?"], told.out
