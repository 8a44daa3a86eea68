"""Overview and Project in a real browser: what arrives live, and what the buttons do."""

import asyncio
import sqlite3

import pytest

from membridge.bus.connection import Bus
from membridge.testing.node_process import NodeProcess
from schemas.identity import canonical_id
from tests.console.browser import Browser
from tests.console.conftest import Seen
from tests.fixtures.gateway import SOON, gateway_of
from tests.fixtures.machines import PROJECT, MakeMachine
from tests.fixtures.pace import pause

pytestmark = pytest.mark.real
CID = canonical_id(PROJECT)


def titles(machine: NodeProcess) -> set[str]:
    """Return the titles of a machine's observations."""
    rows = sqlite3.connect(f"file:{machine.database}?mode=ro", uri=True)
    try:
        return {str(title) for (title,) in rows.execute("SELECT title FROM observations")}
    finally:
        rows.close()


async def test_a_push_arrives_live_and_the_lead_is_handed_over(seen: Seen) -> None:
    run, laptop = seen.browser.run, seen.nodes[1]
    await seen.open()
    await run(
        """await page.getByRole('row', { name: /desk.*primary/ }).waitFor();
        await page.getByRole('link', { name: 'Snapshot 1', exact: true }).waitFor();
        await page.evaluate(() => { window.kept = true; });"""
    )
    # Nothing is clicked and nothing loads anew: another machine's rows become a snapshot, and the page shows it.
    await laptop.write(5, "Wire the relay")
    await run("await page.getByRole('link', { name: 'Snapshot 2', exact: true }).waitFor({ timeout: 30_000 });")
    assert await run("return await page.evaluate(() => window.kept);")
    await run("await page.locator('tr', { hasText: 'laptop' }).getByText('current').waitFor();")
    await seen.picture("overview")

    # A row opens by keyboard, says so, and is in the address.
    opened = await run(
        """const more = page.getByRole('button', { name: 'Details of laptop' });
        await more.focus();
        await page.keyboard.press('Enter');
        await page.getByText('The shared memory has every row of this machine.').waitFor();
        return [await more.getAttribute('aria-expanded'), new URL(page.url()).searchParams.get('open')];"""
    )
    assert opened == ["true", "laptop"]
    await seen.picture("overview open")
    await seen.is_accessible()
    await run("await page.goBack(); await page.getByText('every row of this machine').waitFor({ state: 'detached' });")

    await run(
        """await page.getByRole('link', { name: 'Project' }).click();
        await page.getByRole('button', { name: 'Review and hand over' }).click();
        await page.getByRole('radio', { name: /laptop/ }).waitFor();"""
    )
    await seen.picture("hand over", full=False)
    await seen.is_accessible()
    # Escape leaves everything as it is, and the button has the focus again.
    assert await run(
        """await page.keyboard.press('Escape');
        await page.getByRole('dialog').waitFor({ state: 'detached' });
        await page.waitForFunction(() => document.activeElement.tagName === 'BUTTON');
        return await page.evaluate(() => document.activeElement.textContent.trim());"""
    ) == "Review and hand over"  # fmt: skip
    await run(
        """await page.keyboard.press('Enter');
        await page.getByRole('button', { name: 'Hand over to laptop' }).click();
        await page.locator('.facts .role.primary', { hasText: 'laptop' }).waitFor({ timeout: 30_000 });"""
    )
    leads = await seen.gateway.get(f"/api/membridge/projects/{CID}/leadership")
    assert (leads["primary_node_id"], leads["epoch"] > 1) == ("laptop", True)
    await run("await page.getByRole('row', { name: /laptop.*primary/ }).waitFor();")
    await seen.picture("project now")
    await seen.is_accessible()


async def test_an_earlier_memory_is_compared_and_restored(seen: Seen) -> None:
    run, (desk, laptop) = seen.browser.run, seen.nodes
    for number, count in enumerate((4, 7), start=2):
        await desk.write(count, f"Wire relay {number}")
        await seen.gateway.post(f"/api/projects/{CID}/push", {"node": "desk"})
    # The node may have pushed by itself before: what counts is that both are in.
    head = (await seen.gateway.get(f"/api/projects/{CID}/snapshots"))["records"][0]["seq"]
    assert any("Wire relay 3" in title for title in titles(desk))

    await seen.open("/projects/shared?tab=history&open=1")
    await run("await page.getByRole('button', { name: 'Compare with the newest' }).click();")
    found = await run(
        """const shown = page.locator('#diff');
        await shown.getByText('Wire relay 3').first().waitFor();
        return await shown.textContent();"""
    )
    assert "new" in found
    await seen.picture("project history")
    await seen.is_accessible()

    await run("await page.getByRole('button', { name: 'Review and restore' }).click();")
    # Counts and titles of what will change come first, and the button says how much it is.
    await run("await page.getByRole('dialog').getByText('Wire relay 3').first().waitFor();")
    verb = await run("return await page.locator('.review-buttons button').last().textContent();")
    assert "deleted" in verb
    await seen.picture("restore", full=False)
    await seen.is_accessible()
    assert any("Wire relay 3" in title for title in titles(desk)), "a preview changes nothing"
    await run(
        """await page.locator('.review-buttons button').last().click();
        await page.getByText(/Snapshot 1 is restored as snapshot/).waitFor({ timeout: 60_000 });
        await page.getByRole('row', { name: new RegExp(`^Details of ${next} `) }).waitFor({ timeout: 30_000 });""",
        next=head + 1, seconds=100.0,
    )  # fmt: skip
    for machine in (desk, laptop):
        async with asyncio.timeout(SOON):
            while any("Wire relay" in title for title in titles(machine)):
                await pause()

    for tab in ("conflicts", "quarantine", "backups", "doctor", "jobs"):
        await seen.open(f"/projects/shared?tab={tab}")
        await run("await page.locator('main .panel').first().locator('tr, li, .empty').first().waitFor();")
        await seen.picture(f"project {tab}")
        await seen.is_accessible()
    # On a phone the open part is the last one of a row that is wider than the screen, and still in sight.
    await run("await page.setViewportSize({ width: 390, height: 844 });")
    await seen.open("/projects/shared?tab=jobs")
    place = await run("return page.locator('.tabs [aria-current]').boundingBox();")
    assert 0 <= place["x"] < place["x"] + place["width"] <= 390
    await run("await page.setViewportSize({ width: 1280, height: 800 });")


def rename(machine: NodeProcess, title: str) -> None:
    """Change the title of the newest observation, as a person would."""
    rows = sqlite3.connect(machine.database)
    try:
        with rows:
            rows.execute("UPDATE observations SET title = ? WHERE id = (SELECT max(id) FROM observations)", (title,))
    finally:
        rows.close()


async def test_rows_that_wait_are_named_with_the_reason_and_a_conflict_is_shown_side_by_side(
    bus: Bus, nats_url: str, make_machine: MakeMachine, browser: Browser
) -> None:
    # A lease that a busy machine does not lose.
    alone = {"MEMBRIDGE_AUTO_SYNC": "0", "LEADERSHIP_LEASE_SECONDS": "30"}
    desk, laptop = make_machine("desk", memory=True, **alone), make_machine("laptop", **alone)
    await desk.start()
    await laptop.start()
    async with gateway_of(bus, nats_url, desk.home) as gateway:
        seen, run = Seen(browser, gateway, (desk, laptop)), browser.run
        async with asyncio.timeout(SOON):
            while len((await gateway.get("/api/nodes"))["nodes"]) < 2:
                await pause()
        leads = {"node": "desk"}
        await gateway.post(f"/api/membridge/projects/{CID}/leadership/select", leads)
        await gateway.post(f"/api/projects/{CID}/push", leads)
        await gateway.post(f"/api/projects/{CID}/pull", {"node": "laptop"})
        rename(desk, "The relay is on the desk")
        rename(laptop, "The relay is in the laptop")
        await seen.open("/?open=laptop")
        await run("await page.locator('tr.detail').getByText('The relay is in the laptop').waitFor();")
        said = "1 row that the shared memory lacks: this machine does not push by itself"
        await run("await page.locator('tr.detail').getByText(said).waitFor();", said=said)
        await seen.picture("unsynced")
        await seen.is_accessible()

        await gateway.post(f"/api/projects/{CID}/push", leads)
        await run(
            """await page.locator('tr.detail').getByRole('button', { name: 'Review and pull' }).click();
            await page.getByRole('dialog').getByText('The relay is on the desk').waitFor();
            await page.getByRole('button', { name: 'Pull snapshot 2' }).click();
            await page.getByText(/laptop has snapshot 2/).waitFor();"""
        )
        await seen.open("/projects/shared?tab=conflicts&node=laptop")
        await run(
            """await page.getByRole('row', { name: /The relay is/ }).click();
            const sides = page.locator('.sides');
            await sides.getByText('The relay is on the desk').waitFor();
            await sides.getByText('The relay is in the laptop').waitFor();"""
        )
        await seen.picture("conflict")
        await seen.is_accessible()


async def test_a_snapshot_is_written_to_a_file_and_downloaded(seen: Seen) -> None:
    await seen.open("/projects/shared?tab=history&open=1")
    saved = await seen.browser.run(
        """await page.getByRole("button", { name: "Review and write to a file" }).click();
        await page.getByRole("button", { name: /^Write .* on desk$/ }).click();
        const link = page.getByRole("link", { name: /^Download / });
        await link.waitFor();
        const [file] = await Promise.all([page.waitForEvent("download"), link.click()]);
        const chunks = [];
        for await (const chunk of await file.createReadStream()) chunks.push(chunk);
        const whole = Buffer.concat(chunks);
        return [file.suggestedFilename(), whole.length, whole.subarray(0, 15).toString()];"""
    )
    [path] = seen.nodes[0].home.rglob(f"extracted/{saved[0]}")
    assert saved[1:] == [path.stat().st_size, "SQLite format 3"]
    await seen.picture("history-file")
    await seen.is_accessible()
