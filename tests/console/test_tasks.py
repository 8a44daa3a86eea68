"""The page of tasks in a real browser: submit, live log, search, many at once, workers, records."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from membridge.bus.connection import Bus
from membridge.bus.rpc import RpcClient
from membridge.embedded.nats_server import NatsServer
from membridge.system import clock
from membridge.worker.worker import AttemptResult
from schemas import subjects
from schemas.leases import Order
from schemas.results import Metrics, ResultStatus
from schemas.task_events import TaskEvent, TaskEventKind
from schemas.tasks import TaskSpec, TaskStatus
from schemas.web import Role
from schemas.wire import encode
from schemas.workers import WorkerStatus
from services.coordinator import task_jobs
from tests.console.browser import Browser
from tests.console.conftest import Seen
from tests.fixtures.gateway import gateway_of
from tests.fixtures.tasks import Place, place_of, soon

pytestmark = pytest.mark.real


@dataclass
class Worked:
    """A task runtime with a worker whose tasks write a log and end when the test says so."""

    seen: Seen
    place: Place
    #: Lines that a task writes when it begins.
    begins: int = 3
    ends: asyncio.Event = field(default_factory=asyncio.Event)
    coordinator: "asyncio.Task[None] | None" = None

    async def attempt(self, order: Order) -> AttemptResult:
        """Write lines, wait, and answer with the prompt; one that is to fail does."""
        for number in range(self.begins):
            await self.write(order.task.id, f"reading file {number}")
        if "fail" in order.task.prompt:
            return AttemptResult(
                ResultStatus.ERROR, Metrics(duration_ms=3), error_message="claude: credit balance is too low"
            )
        await self.ends.wait()
        await self.write(order.task.id, "the last line")
        return AttemptResult(
            ResultStatus.SUCCESS, Metrics(duration_ms=1_234, tokens_used=56), output=f"done: {order.task.prompt}"
        )

    async def away(self) -> None:
        """Stop the coordinator."""
        assert self.coordinator is not None
        self.coordinator.cancel()
        await asyncio.wait({self.coordinator})

    async def back(self) -> None:
        """Start it again."""
        self.coordinator = await self.place.coordinator()

    async def write(self, task: str, line: str) -> None:
        """Write a line to a task's log."""
        event = TaskEvent(task_id=task, kind=TaskEventKind.STDERR, at=clock.stamp(), text=line)
        subject = subjects.fill(subjects.TASK_EVENT, task=task, kind="stderr", by="desk")
        await self.place.bus.publish(subject, encode(event))


@pytest.fixture
async def worked(bus: Bus, nats_server: NatsServer, tmp_path: Path, browser: Browser) -> AsyncGenerator[Worked]:
    async with (
        place_of(bus, nats_server.url, f"sqlite:///{tmp_path}/tasks.db", tmp_path) as place,
        gateway_of(bus, nats_server.url, tmp_path / "gateway") as gateway,
    ):
        made = Worked(Seen(browser, gateway, ()), place)
        await made.back()
        await place.worker("desk", made.attempt, labels=("gpu=no",))
        await place.until_known("desk", WorkerStatus.ONLINE)
        yield made


async def test_a_task_is_submitted_and_its_log_is_live_until_it_ends(worked: Worked) -> None:
    seen, run = worked.seen, worked.seen.browser.run
    await seen.open("/tasks")
    await run("await page.getByText('No task yet').waitFor();")
    await seen.picture("tasks-empty")
    await run(
        """await page.getByRole("link", { name: "New task" }).click();
        await page.getByLabel("Agent").fill("reviewer");
        await page.getByLabel("Prompt").fill("Review the last change\\nand say what is missing.");"""
    )
    await seen.picture("tasks-new")
    await seen.is_accessible()
    await run(
        """await page.getByRole("button", { name: "Review and submit" }).click();
        await page.getByText("1 worker could take it: desk").waitFor();"""
    )
    await seen.picture("tasks-submit")
    await run(
        """await page.getByRole("button", { name: "Submit the task" }).click();
        await page.getByRole("heading", { level: 1, name: "Review the last change" }).waitFor();
        await page.locator("#task-state").getByText("running").waitFor();
        await page.locator(".line", { hasText: "reading file 2" }).waitFor();"""
    )
    # A line is seen as it is written.
    task = (await run("return page.url();")).rpartition("/")[2]
    await worked.write(task, "a line <b>that came later</b>")
    await run("await page.locator('.line', { hasText: 'a line <b>that came later</b>' }).waitFor();")
    await seen.picture("tasks-running")
    worked.ends.set()
    await run(
        """await page.locator("#task-state").getByText("completed").waitFor();
        await page.locator(".line", { hasText: "the last line" }).waitFor();
        await page.getByText("done: Review the last change").waitFor();"""
    )
    await seen.picture("tasks-done")
    await seen.is_accessible()
    # What is searched and left out is in the address, and the download has what is shown.
    saved = await run(
        """await page.getByRole("searchbox", { name: "Lines with" }).fill("reading file");
        await page.getByText("3 of").waitFor();
        await page.getByLabel("State", { exact: true }).uncheck();
        await page.waitForURL(/find=reading.*without=status|without=status.*find=reading/);
        const [file] = await Promise.all([
          page.waitForEvent("download"),
          page.getByRole("region", { name: "Log" }).getByRole("button", { name: "Download" }).click(),
        ]);
        const chunks = [];
        for await (const chunk of await file.createReadStream()) chunks.push(chunk);
        return [file.suggestedFilename(), Buffer.concat(chunks).toString()];"""
    )
    assert saved[0] == f"{task}.log"
    assert [line.split(" ", 2)[2] for line in saved[1].splitlines()] == [f"reading file {one}" for one in range(3)]
    assert await seen.browser.complaints() == []


async def test_tasks_are_searched_and_all_that_match_are_cancelled_and_queued_again(worked: Worked) -> None:
    seen, run, place = worked.seen, worked.seen.browser.run, worked.place
    for number in range(60):
        await place.submit(f"Sort the apples {number}", f"apples-{number}", labels=["gpu=yes"])
    failed = await place.submit("This one will fail", "failing", max_attempts=1)
    await place.until(failed.id, TaskStatus.DEAD)
    running = await place.submit("Count the pears", "pears")
    await place.until(running.id, TaskStatus.RUNNING)
    await seen.open("/tasks")
    await run("await page.getByText('62 tasks').waitFor();")
    await seen.picture("tasks")
    await seen.is_accessible()
    # By an error, then by words; with a filter everything can be chosen at once.
    await run(
        """await page.getByRole("searchbox", { name: "Search" }).fill("credit balance");
        await page.getByText("1 task matches").waitFor();
        await page.getByRole("link", { name: "This one will fail" }).waitFor();
        await page.getByRole("searchbox", { name: "Search" }).fill("apples");
        await page.getByText("60 tasks match").waitFor();
        await page.getByRole("button", { name: "Select all 60 that match" }).click();
        await page.getByRole("button", { name: "Review and cancel" }).click();
        await page.getByText("60 tasks", { exact: true }).waitFor();"""
    )
    await seen.picture("tasks-cancel")
    await seen.is_accessible()
    assert (await seen.gateway.get("/api/runtime/stats"))["tasks"]["queued"] == 60
    await run(
        """await page.getByRole("button", { name: "Cancel 60 tasks" }).click();
        const jobs = page.getByRole("region", { name: "Changes of many tasks" });
        await jobs.getByText("60 tasks cancelled by").waitFor();
        await page.locator(".list .badge.fail").nth(49).waitFor();
        await page.getByText("Cancelling 60 tasks").waitFor({ state: "detached" });"""
    )
    await seen.picture("tasks-cancelled")
    await run(
        "await page.getByRole('region', { name: 'Changes of many' }).getByRole('button', { name: 'Close' }).click();"
    )
    assert (await seen.gateway.get("/api/runtime/stats"))["tasks"] == {"dead": 61, "running": 1}
    # Some of them again, by hand.
    await run(
        """for (const at of [0, 1]) await page.locator(".list input").nth(at).check();
        await page.getByRole("button", { name: "Review and queue again" }).click();
        await page.getByRole("button", { name: "Queue 2 tasks again" }).click();
        await page.getByText("2 tasks queued again").waitFor();"""
    )
    assert (await seen.gateway.get("/api/runtime/stats"))["tasks"] == {"dead": 59, "queued": 2, "running": 1}
    # What ends is seen without a touch.
    await run(
        "await page.goto(url); await page.getByText('running').nth(1).waitFor();", url=f"{seen.url}/tasks?q=pears"
    )
    worked.ends.set()
    await run("await page.locator('.list .badge.ok', { hasText: 'completed' }).waitFor();")
    # One who may only read sees the same without anything to press.
    await run(
        """await page.evaluate((key) => fetch("/api/v1/session", {
          method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ key }) }), key);
        await page.reload();
        await page.getByRole("link", { name: "Count the pears" }).waitFor();
        await page.getByRole("button", { name: "Log out" }).waitFor();""",
        key=await seen.gateway.key(Role.READER, "tasks"),
    )
    for name in ("New task", "Select", "Review"):
        assert await run("return page.getByText(name).count();", name=name) == 0, name
    await run("await page.goto(url); await page.getByText('may not submit').waitFor();", url=f"{seen.url}/tasks/new")
    assert await seen.browser.complaints() == []


async def test_workers_are_drained_and_what_is_kept_is_listed(worked: Worked) -> None:
    seen, run, place = worked.seen, worked.seen.browser.run, worked.place
    task = await place.submit("Count the pears", "pears")
    await place.until(task.id, TaskStatus.RUNNING)
    await seen.open("/tasks/workers")
    await run(
        """await page.locator("span", { hasText: /^1 of 4$/ }).first().waitFor();
        await page.getByRole("button", { name: "Details of desk" }).click();
        await page.getByText("lease ends").waitFor();"""
    )
    await seen.picture("tasks-workers")
    await seen.is_accessible()
    await run(
        """await page.getByRole("button", { name: "Review and drain" }).click();
        await page.getByText("It runs 1 task now, which it finishes.").waitFor();
        await page.getByRole("button", { name: "Drain desk" }).click();
        await page.getByText("draining").waitFor();"""
    )
    workers = (await seen.gateway.get("/api/runtime/workers"))["workers"]
    assert [one["status"] for one in workers] == ["syncing"]
    await run(
        """await page.getByRole("button", { name: "Review and resume" }).click();
        await page.getByRole("button", { name: "Resume desk" }).click();
        await page.getByText("online").waitFor();"""
    )
    worked.ends.set()
    await run(
        """await page.locator("span", { hasText: /^0 of 4$/ }).first().waitFor();
        await page.getByText("ended in the last minute: helper 1").waitFor();"""
    )
    for tab, wanted in (("runs", "completed"), ("artifacts", "Download"), ("audit", "submitted")):
        await run("await page.goto(url); await page.locator('.list').getByText(text).first().waitFor();",
                  url=f"{seen.url}/tasks/{tab}", text=wanted)  # fmt: skip
        await seen.picture(f"tasks-{tab}")
        await seen.is_accessible()


async def test_a_log_of_a_hundred_thousand_lines_stays_usable(worked: Worked) -> None:
    seen, run, place = worked.seen, worked.seen.browser.run, worked.place
    task = await place.submit("Count the pears", "pears")
    await place.until(task.id, TaskStatus.RUNNING)
    for number in range(100):
        await worked.write(task.id, "\n".join(f"line {number * 1_000 + one}" for one in range(1_000)))
    await seen.open(f"/tasks/task/{task.id}")
    await run("await page.locator('.line', { hasText: 'line 99999' }).waitFor();")
    assert await run("return page.locator('.line').count();") < 100
    # From the end to the beginning, and a search through all of it.
    took = await run(
        """const box = page.getByRole("log");
        await box.evaluate((at) => at.scrollTo(0, 0));
        await page.locator(".line", { hasText: "line 0" }).first().waitFor();
        const began = Date.now();
        await page.getByRole("searchbox", { name: "Lines with" }).fill("line 77777");
        await page.getByText("1 of 100,00").waitFor();
        return Date.now() - began;"""
    )
    assert took < 5_000
    assert await seen.browser.complaints() == []


async def test_eight_tabs_of_one_browser_see_a_line_as_it_is_written(worked: Worked) -> None:
    seen, run, place = worked.seen, worked.seen.browser.run, worked.place
    task = await place.submit("Count the pears", "pears")
    await place.until(task.id, TaskStatus.RUNNING)
    await run(
        """globalThis.tabs = [page];
        while (tabs.length < 8) tabs.push(await newPage());
        for (const tab of tabs) await tab.goto(url);
        for (const tab of tabs) await tab.locator(".line", { hasText: "reading file 2" }).waitFor();
        for (const tab of tabs) await tab.locator("#connection.ok").waitFor();""",
        url=f"{seen.url}/tasks/task/{task.id}",
    )
    await worked.write(task.id, "seen by all")
    await run("for (const tab of tabs) await tab.locator('.line', { hasText: 'seen by all' }).waitFor();")
    worked.ends.set()
    await run("for (const tab of tabs) await tab.locator('#task-state').getByText('completed').waitFor();")
    assert await seen.browser.complaints() == []


async def test_a_change_of_many_tasks_shows_its_progress_and_is_stopped(
    worked: Worked, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, run, place = worked.seen, worked.seen.browser.run, worked.place
    goes_on, whole = asyncio.Semaphore(1), task_jobs.change

    async def held(*args: Any, **more: Any) -> Any:
        await goes_on.acquire()
        return await whole(*args, **more)

    monkeypatch.setattr(task_jobs, "AT_ONCE", 10)
    monkeypatch.setattr(task_jobs, "change", held)
    for number in range(30):
        await place.submit(f"Sort the apples {number}", f"apples-{number}", labels=["gpu=yes"])
    await seen.open("/tasks?q=apples")
    await run("await page.getByText('30 tasks match').waitFor();")
    # Another one begins it: whoever has the page open sees it.
    request = {"change": "cancel", "filter": {"q": "apples"}, "apply": True, "as_job": True}
    begun = await seen.gateway.post("/api/runtime/task-changes", request)
    await run("await page.getByText('Cancelling 30 tasks').waitFor(); await page.getByText('10 of 30').waitFor();")
    await seen.picture("tasks-job")
    await seen.is_accessible()
    goes_on.release()
    await run(
        """await page.getByText("20 of 30").waitFor();
        await page.getByRole("button", { name: "Review and stop" }).click();
        await page.getByText("20 tasks cancelled so far, which stays.").waitFor();
        await page.getByRole("button", { name: "Stop here" }).click();
        await page.getByText("20 tasks cancelled, stopped at 20 of 30").waitFor();"""
    )
    job = await seen.gateway.get(f"/api/runtime/task-jobs/{begun['job']['id']}")
    assert (job["state"], job["outcomes"]) == ("stopped", {"changed": 20})
    assert await seen.browser.complaints() == []


async def test_lists_are_sorted_by_the_heads_of_their_columns(worked: Worked) -> None:
    seen, run, place = worked.seen, worked.seen.browser.run, worked.place
    for agent in ("mason", "baker", "tailor"):
        spec = TaskSpec(agent_slug=agent, prompt=f"for the {agent}", labels=["gpu=yes"])
        await RpcClient(place.bus).request(subjects.SUBMIT, spec, deadline=soon())
    agents = "return page.locator('tbody tr td:nth-child(4)').allTextContents();"
    await seen.open("/tasks")
    await run("await page.getByText('3 tasks').waitFor();")
    assert await run(agents) == ["tailor", "baker", "mason"]
    head = """await page.getByRole("button", { name: "Agent" }).click();
        await page.locator("th[aria-sort=" + way + "]").waitFor();
        await page.locator("tbody tr:first-child", { hasText: first }).waitFor();"""
    await run(head, way="ascending", first="baker")
    assert await run(agents) == ["baker", "mason", "tailor"]
    await run(head, way="descending", first="tailor")
    assert await run(agents) == ["tailor", "mason", "baker"]
    # The order is in the address; a third press is the order of before.
    assert await run("return new URL(page.url()).search;") == "?sort=-agent"
    await run("await page.reload(); await page.locator('th[aria-sort=descending]').waitFor();")
    await seen.is_accessible()
    await run("await page.getByRole('button', { name: 'Agent' }).click(); await page.waitForURL(/tasks$/);")
    await run("await page.locator('tbody tr:nth-child(2)', { hasText: 'baker' }).waitFor();")
    # A phone has no heads, and a choice instead.
    await run(
        """await page.setViewportSize({ width: 390, height: 844 });
        await page.getByLabel("Sort by").selectOption("agent");
        await page.locator("tbody tr:first-child", { hasText: "baker" }).waitFor();"""
    )
    assert await seen.browser.complaints() == []


async def test_pages_recover_by_themselves_when_the_coordinator_is_back(worked: Worked) -> None:
    seen, run, place = worked.seen, worked.seen.browser.run, worked.place
    task = await place.submit("Count the pears", "pears")
    await place.until(task.id, TaskStatus.RUNNING)
    await seen.open("/tasks")
    await run("await page.getByText('1 task', { exact: true }).waitFor();")
    await worked.away()
    # What was shown stays; what is opened now says what is missing, and that it is asked again.
    pages = {"tasks": "Count the pears", f"tasks/task/{task.id}": "reading file 2", "tasks/workers": "desk"}
    await run(
        """globalThis.tabs = [];
        for (const name of names) tabs.push(await newPage());
        for (const [at, name] of names.entries()) await tabs[at].goto(url + "/" + name);
        for (const tab of tabs) await tab.getByText("no coordinator").first().waitFor();
        for (const tab of tabs) await tab.getByText("asked again by itself").first().waitFor();""",
        names=list(pages), url=seen.url,
    )  # fmt: skip
    await seen.picture("coordinator-away", page="tabs[0]")
    await worked.back()
    await run(
        """for (const [at, text] of texts.entries()) await tabs[at].getByText(text).first().waitFor();
        for (const tab of tabs) await tab.getByText("asked again by itself").waitFor({ state: "detached" });""",
        texts=list(pages.values()),
    )
    worked.ends.set()
    await run(
        """await tabs[1].locator("#task-state").getByText("completed").waitFor();
        await page.locator(".list .badge.ok", { hasText: "completed" }).waitFor();"""
    )
    await seen.browser.complaints()
