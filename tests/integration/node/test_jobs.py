"""Every requested job is in the daemon's log and in `membridge jobs`, failed ones too, and the list needs no daemon."""

import json
from typing import Any

from membridge.aio.deadline import Deadline
from membridge.bus.connection import Bus
from membridge.testing.node_process import NodeProcess
from schemas import subjects
from schemas.identity import NodeId, canonical_id
from schemas.leadership import Role
from schemas.node import Job, JobState
from schemas.wire import encode
from tests.fixtures.machines import PROJECT, MakeMachine, command, until


def logged(machine: NodeProcess, event: str) -> list[dict[str, Any]]:
    lines = map(json.loads, machine.log.read_text().splitlines())
    return [line for line in lines if line["event"] == event]


async def test_jobs_are_logged_by_the_daemon_and_listed_with_who_where_and_how_without_it(
    make_machine: MakeMachine, bus: Bus
) -> None:
    a, b = make_machine("a", memory=True, MEMBRIDGE_AUTO_SYNC="0"), make_machine("b", MEMBRIDGE_AUTO_SYNC="0")
    assert "no job yet" in (await a.command("jobs"))[1]
    await a.start()
    await until(bus, a, lambda seen: seen.project.role is Role.PRIMARY)
    pushed = await command(a, "push")
    await b.start()
    await until(bus, b, lambda seen: seen.primary == "a")
    await command(b, "pull")
    assert (await b.command("push", "--snapshot"))[0] == 3
    await command(a, "restore", "--seq", "1", "--yes")
    await command(a, "gc")

    done = {(line["kind"], line["outcome"]) for line in logged(a, "job done")}
    assert {kind for kind, _ in done} == {"push", "restore", "gc"}
    (failed,) = logged(b, "job failed")
    assert (failed["kind"], failed["level"], failed["code"]) == ("push", "warning", "secondary_push_blocked")
    assert failed["by"].endswith("@b")
    assert "not primary" in failed["reason"]

    await a.stop()
    await b.stop()
    listed = (await command(b, "jobs"))["jobs"]
    assert {(job["kind"], job["node"], job["state"]) for job in listed} == {
        ("push", "a", "done"), ("pull", "b", "done"), ("push", "b", "failed"), ("restore", "a", "done"),
        ("gc", "a", "done"),
    }  # fmt: skip
    assert {job["requested_by"].partition("@")[2] for job in listed} == {"a", "b"}
    _, table = await b.command("jobs")
    assert table.split()[:8] == ["id", "started", "node", "by", "kind", "state", "took", "result"]
    assert pushed["job_id"][-8:] in table
    for name in (pushed["job_id"], pushed["job_id"][-8:]):
        shown = await command(b, "jobs", "show", name)
        assert (shown["id"], shown["node"]) == (pushed["job_id"], "a")
    _, page = await b.command("jobs", "show", pushed["job_id"])
    assert {step["name"] for step in shown["steps"]} <= set(page.split())
    code, output = await b.command("jobs", "show", "nothing")
    assert (code, "`membridge jobs`" in output) == (1, True), output


async def test_what_a_killed_daemon_ran_is_abandoned_once_it_runs_again_and_what_others_run_is_not(
    make_machine: MakeMachine, bus: Bus
) -> None:
    a, project = make_machine("a", memory=True, MEMBRIDGE_AUTO_SYNC="0"), canonical_id(PROJECT)
    for node, state in (("a", JobState.RUNNING), ("a", JobState.DONE), ("b", JobState.RUNNING)):
        left = Job(
            id=f"{node}-{state}", project=project, node=NodeId(node), kind="push", state=state,
            started_at="2026-11-28T07:00:00+00:00",
        )  # fmt: skip
        subject = subjects.fill(subjects.JOB, project=project, node=node, job=left.id)
        await bus.stream_publish(subject, encode(left), message_id=left.id, deadline=Deadline.after(5.0))
    await a.start()
    await until(bus, a, lambda seen: seen.project.role is Role.PRIMARY)
    listed = {job["id"]: job for job in (await command(a, "jobs"))["jobs"]}
    assert {name: job["state"] for name, job in listed.items()} == {
        "a-running": "abandoned", "a-done": "done", "b-running": "running",
    }  # fmt: skip
    assert "killed" in listed["a-running"]["error"]
