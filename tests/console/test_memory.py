"""The page of memories in a real browser: search, a memory's own address, forget and restore."""

import asyncio
import sqlite3

import pytest

from membridge.testing.node_process import NodeProcess
from schemas.identity import canonical_id
from tests.console.conftest import Seen
from tests.fixtures.gateway import SOON
from tests.fixtures.machines import PROJECT
from tests.fixtures.pace import pause

pytestmark = pytest.mark.real
CID = canonical_id(PROJECT)


def observations(machine: NodeProcess) -> int:
    """Count the observations of a machine."""
    rows = sqlite3.connect(f"file:{machine.database}?mode=ro", uri=True)
    try:
        return int(rows.execute("SELECT count(*) FROM observations").fetchone()[0])
    finally:
        rows.close()


async def until(machine: NodeProcess, count: int) -> None:
    """Wait until a machine has so many observations."""
    async with asyncio.timeout(SOON):
        while not machine.database.exists() or observations(machine) != count:
            await pause()


async def test_a_memory_is_found_opened_forgotten_on_every_machine_and_restored(seen: Seen) -> None:
    run, (desk, laptop) = seen.browser.run, seen.nodes
    total = observations(desk)
    await until(laptop, total)
    first = (await seen.gateway.get(f"/api/projects/{CID}/memories?kind=observation&limit=1"))["memories"][0]
    word = max(first["title"].split(), key=len).strip(".,:;()'\"")
    await seen.open("/memory")
    await run("await page.locator('.hits > li').nth(20).waitFor();")
    await seen.picture("memory")
    await seen.is_accessible()
    # Search as it is typed: the words are marked, the filter is in the address.
    await run(
        """await page.getByRole("searchbox", { name: "Search" }).pressSequentially(word);
        await page.locator(".snippet mark").first().waitFor();
        await page.getByLabel("Kind").selectOption("observation");
        await page.waitForURL(/kind=observation/);
        await page.getByRole("link", { name: title }).first().waitFor();""",
        word=word, title=first["title"],
    )  # fmt: skip
    assert f"q={word}" in await run("return page.url();")
    await seen.picture("memory-search")
    await run("await page.getByRole('link', { name: title }).first().click();", title=first["title"])
    await run("await page.getByRole('heading', { level: 1, name: title }).waitFor();", title=first["title"])
    assert await run("return new URL(page.url()).pathname;") == f"/console/memory/{CID}/{first['ref']}"
    await seen.picture("memory-one")
    await seen.is_accessible()
    # Back keeps the search. Three are chosen, and the dialog says which before anything happens.
    await run(
        """await page.goBack();
        await page.locator(".snippet mark").first().waitFor();
        await page.goto(url);
        await page.locator(".hits input").nth(2).waitFor();
        for (const at of [0, 1, 2]) await page.locator(".hits input").nth(at).check();
        await page.getByRole("button", { name: "Review and forget" }).click();
        await page.getByText("3 observations").waitFor();""",
        url=f"{seen.url}/memory?kind=observation",
    )
    titles = await run("return page.locator('dialog .titles li').allInnerTexts();")
    assert len(titles) == 3
    assert observations(desk) == total
    await seen.picture("memory-forget")
    await seen.is_accessible()
    await run(
        """await page.getByRole("button", { name: "Forget 3 memories" }).click();
        await page.getByText("Forgotten: 3 memories").waitFor();"""
    )
    assert observations(desk) == total - 3
    await until(laptop, total - 3)
    for one in titles:
        await run(
            "await page.locator('.hits').getByRole('link', { name, exact: true }).waitFor({ state: 'detached' });",
            name=one.split(" ", 1)[1],
        )
    await seen.picture("memory-forgotten")
    await run(
        """await page.getByRole("button", { name: "Review and restore snapshot" }).click();
        await page.getByText("3 come back").waitFor();
        await page.getByRole("button", { name: "Restore 3 rows" }).click();
        await page.getByText("Restored: 3 memories came back").waitFor();
        await page.locator(".undo").waitFor({ state: "detached" });"""
    )
    await until(desk, total)
    await until(laptop, total)
    assert await seen.browser.complaints() == []


async def test_all_that_match_are_forgotten_by_their_filter(seen: Seen) -> None:
    run, desk = seen.browser.run, seen.nodes[0]
    total = (await seen.gateway.get(f"/api/projects/{CID}/memories?kind=prompt&limit=1"))["total"]
    assert total > 50
    await seen.open("/memory")
    # Without a filter not everything can be chosen at once.
    await run("await page.locator('.hits > li').first().waitFor();")
    assert await run("return page.getByRole('button', { name: /Select all/ }).count();") == 0
    await seen.open("/memory?kind=prompt")
    await run(
        """await page.getByRole("button", { name: `Select all ${total} that match` }).click();
        await page.getByText(`${total} selected`).waitFor();
        await page.getByRole("button", { name: "Review and forget" }).click();
        await page.getByText(`${total} prompts`).waitFor();
        await page.getByRole("button", { name: `Forget ${total} memories` }).click();
        await page.getByText("No memory matches").waitFor();""",
        total=total,
    )
    assert observations(desk) > 0
    assert (await seen.gateway.get(f"/api/projects/{CID}/memories?kind=prompt"))["total"] == 0
    assert await seen.browser.complaints() == []


async def test_what_is_not_there_says_so_and_what_to_do(seen: Seen) -> None:
    run = seen.browser.run
    await seen.open(f"/memory/{CID}/observation-1-0123456789abcdef")
    await run("await page.getByText('there is no memory observation-1-0123456789abcdef').waitFor();")
    await seen.picture("memory-none")
    await seen.is_accessible()
    await run(
        """await page.getByRole("link", { name: "All memories" }).click();
        await page.getByRole("searchbox", { name: "Search" }).fill("nothingatallhasthisword");
        await page.getByText("No memory matches").waitFor();"""
    )
    await seen.picture("memory-no-match")
    await run(
        """await page.getByRole("link", { name: "Show all memories" }).click();
        await page.locator(".hits > li").first().waitFor();"""
    )
    # No coordinator runs here.
    await seen.open("/tasks")
    await run("await page.getByText('no coordinator answers: tasks need one').waitFor();")
    await seen.picture("tasks-no-coordinator")
    await seen.is_accessible()
