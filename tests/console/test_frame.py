"""The console's frame in a real browser: login, one stream for all tabs, and what is cut off from what."""

import asyncio
import os
import re
import shutil
import signal
import time
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from membridge.bus.connection import Bus
from membridge.testing.node_process import NodeProcess
from schemas.web import Role
from tests.console.browser import Browser
from tests.console.conftest import Seen
from tests.fixtures.gateway import SOON, Gateway, gateway_of
from tests.fixtures.machines import SAMPLE, MakeMachine
from tests.fixtures.nats import Restartable
from tests.fixtures.pace import pause
from tests.fixtures.ports import free_port
from tests.fixtures.toy_web import Toy

pytestmark = pytest.mark.real
RUNTIME = "r" * 24
#: Seconds after which a page that wakes shows that it is live.
LIVE_AGAIN = 1.0
#: Waits until each tab shows the link of a snapshot.
SHOWN = "for (const tab of tabs) await tab.getByRole('link', { name, exact: true }).waitFor({ timeout: 30_000 });"


async def test_a_key_logs_in_and_what_it_may_not_do_is_not_shown(
    bus: Bus, nats_url: str, tmp_path: Path, browser: Browser, make_machine: MakeMachine
) -> None:
    desk = make_machine("desk", memory=True)
    await desk.start()
    async with gateway_of(bus, nats_url, tmp_path, RUNTIME_API_KEY=RUNTIME) as gateway:
        reader = await gateway.key(Role.READER, "memory")
        seen = Seen(browser, gateway, (desk,))
        await browser.run(
            "await page.goto(url); await page.getByLabel('API key').waitFor();", url=f"{seen.url}/projects"
        )
        await seen.picture("login")
        await seen.is_accessible()
        await browser.run(
            """await page.getByLabel('API key').fill('mbk_wrong_key');
            await page.keyboard.press('Enter');
            await page.getByRole('alert').getByText('Not logged in').waitFor();"""
        )
        await seen.picture("login refused")
        # The page that was asked for comes after the login.
        await browser.run(
            """await page.getByLabel('API key').fill(key);
            await page.getByRole('button', { name: 'Log in' }).click();
            await page.locator('#connection.ok').waitFor();
            await page.getByRole('button', { name: 'Review and push' }).first().waitFor();""",
            key=RUNTIME,
        )
        cookies = await browser.run("return await context.cookies();")
        assert [(one["httpOnly"], one["sameSite"]) for one in cookies] == [(True, "Strict")]
        assert RUNTIME not in str(cookies)
        # Another tab is logged out with this one.
        await browser.run(
            """globalThis.second = await newPage();
            await second.goto(url);
            await second.locator('#connection.ok').waitFor();
            await page.getByRole('button', { name: 'Log out' }).click();
            await page.getByLabel('API key').waitFor();
            await second.getByLabel('API key').waitFor();
            await second.close();""",
            url=seen.url,
        )
        await browser.run(
            """await page.getByLabel('API key').fill(key);
            await page.keyboard.press('Enter');
            await page.getByRole('cell', { name: 'desk' }).first().waitFor();""",
            key=reader,
        )
        assert await browser.run("return await page.getByRole('button', { name: /^Review/ }).count();") == 0
        assert await browser.complaints() == []


async def test_eight_tabs_share_one_stream_and_all_are_live(seen: Seen) -> None:
    run, key = seen.browser.run, await seen.gateway.key(Role.READER, "metrics")
    await run(
        """globalThis.tabs = [page];
        while (tabs.length < 8) tabs.push(await newPage());
        globalThis.refused = [];
        context.on('response', (response) => { if (response.status() === 429) refused.push(response.url()); });
        await Promise.all(tabs.map((tab) => tab.goto(url)));
        for (const tab of tabs) await tab.getByRole('link', { name: 'Snapshot 1', exact: true }).waitFor();
        for (const tab of tabs) await tab.locator('#connection.ok').waitFor();""",
        url=seen.url + "/",
    )
    assert await streams(seen.gateway, key) == 1
    await seen.nodes[0].write(3, "For all tabs")
    await run(SHOWN, name="Snapshot 2")
    # The tab that reads is closed, whichever it is: another one reads on.
    await run("for (const tab of tabs.splice(0, 4)) await tab.close();")
    await run("for (const tab of tabs) await tab.locator('#connection.ok').waitFor();")
    await seen.nodes[0].write(3, "For those that are left")
    await run(SHOWN, name="Snapshot 3")
    assert await streams(seen.gateway, key) == 1
    assert await run("return refused;") == []
    assert await seen.browser.complaints() == []


async def streams(gateway: Gateway, key: str) -> int:
    """Return how many event streams the gateway has open."""
    text = (await gateway.ask("GET", "/metrics", key=key)).body.decode()
    return sum(int(float(count)) for count in re.findall(r"^membridge_http_streams\{.*\} (\S+)$", text, re.MULTILINE))


async def until_committed(gateway: Gateway) -> None:
    """Wait until the gateway answers, and the project has a second snapshot."""
    async with asyncio.timeout(SOON):
        while True:
            try:
                if any(one["head_seq"] >= 2 for one in (await gateway.get("/api/membridge/projects"))["projects"]):
                    return
            except (OSError, AssertionError):
                # It does not listen yet, or does not know its keys yet.
                pass
            await pause()


@pytest.fixture
async def apart(tmp_path: Path, restartable: Restartable) -> AsyncGenerator[tuple[NodeProcess, NodeProcess]]:
    """A node and a gateway, each a process that can be killed."""
    desk = NodeProcess("desk", tmp_path / "desk", restartable.url, "shared")
    listen = {"MEMBRIDGE_GATEWAY": "1", "MEMBRIDGE_GATEWAY_LISTEN": f"127.0.0.1:{free_port()}"}
    gateway = NodeProcess("desk", tmp_path / "gateway", restartable.url, "shared", extra=listen)
    gateway.home.mkdir()
    desk.database.parent.mkdir(parents=True)
    shutil.copyfile(SAMPLE, desk.database)
    await desk.start()
    await gateway.start("gateway")
    yield desk, gateway
    await gateway.stop()
    await desk.stop()


async def test_three_things_that_are_cut_off_are_told_apart_and_come_back_by_themselves(
    apart: tuple[NodeProcess, NodeProcess], restartable: Restartable, browser: Browser
) -> None:
    (desk, gateway), run = apart, browser.run
    address = gateway.extra["MEMBRIDGE_GATEWAY_LISTEN"]
    seen = Seen(browser, Gateway(Toy(host="127.0.0.1", port=int(address.rpartition(":")[2])), None), (desk,))  # type: ignore[arg-type]
    await run(
        """for (let tries = 0; ; tries += 1) {
          try { await page.goto(url); break; } catch (error) { if (tries > 100) throw error; }
          await page.waitForTimeout(200);
        }
        await page.getByRole('link', { name: 'Snapshot 1', exact: true }).waitFor({ timeout: 60_000 });
        await page.evaluate(() => { window.kept = true; });""",
        url=seen.url + "/", seconds=90.0,
    )  # fmt: skip

    # The browser from the gateway: a kill, and a new process at the same address.
    await gateway.kill()
    await run("await page.getByRole('alert').getByText('The browser cannot reach the gateway').waitFor();")
    await run("await page.locator('.asof').first().waitFor({ timeout: 30_000 });")
    await seen.picture("gateway lost")
    await gateway.start("gateway")
    await run("await page.locator('#connection.ok').waitFor({ timeout: 30_000 });")
    assert await run("return await page.locator('.asof').count();") == 0

    # The gateway from NATS.
    restartable.kill()
    await run(
        "await page.getByRole('alert').getByText('The gateway cannot reach NATS').waitFor({ timeout: 60_000 });",
        seconds=70,
    )
    await seen.picture("nats lost", full=False)
    restartable.start()
    await run("await page.locator('#connection.ok').waitFor({ timeout: 60_000 });", seconds=70)

    # A browser that slept through a restart and a push shows both within a second.
    renderers = await run(
        """const { processInfo } = await (await browser.newBrowserCDPSession()).send('SystemInfo.getProcessInfo');
        return processInfo.filter((one) => one.type === 'renderer').map((one) => one.id);"""
    )
    for renderer in renderers:
        os.kill(renderer, signal.SIGSTOP)
    await gateway.kill()
    await gateway.start("gateway")
    await desk.write(2, "While it slept")
    await until_committed(seen.gateway)
    for renderer in renderers:
        os.kill(renderer, signal.SIGCONT)
    began = time.monotonic()
    await run("await page.getByRole('link', { name: 'Snapshot 2', exact: true }).waitFor();")
    assert time.monotonic() - began < LIVE_AGAIN

    # A machine from NATS: it says nothing for a while, and the rest is live.
    await run("await page.getByRole('row', { name: /desk.*primary/ }).waitFor({ timeout: 60_000 });", seconds=70)
    await desk.stop()
    await run("await page.getByRole('row', { name: /desk away/ }).waitFor({ timeout: 60_000 });", seconds=70)
    await run("await page.getByText('Its snapshots are shown here as soon as one is.').waitFor();")
    await seen.picture("machine away")
    assert await run("return await page.locator('#connection.ok').count();") == 1

    # Nothing of it loaded the page anew.
    assert await run("return await page.evaluate(() => window.kept);")

    # A browser that was without network is live within a second of its return.
    await run("await context.setOffline(true); await page.locator('#connection.fail').waitFor();")
    began = time.monotonic()
    await run("await context.setOffline(false); await page.locator('#connection.ok').waitFor();")
    assert time.monotonic() - began < LIVE_AGAIN
