"""Machines of one memory, a gateway with the console, and a browser."""

import asyncio
import os
import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path

import pytest

from membridge.bus.connection import Bus
from membridge.testing.node_process import NodeProcess
from tests.console.browser import Browser, browsing
from tests.console.fetch import BrowserParts, fetch
from tests.fixtures.gateway import SOON, Gateway, gateway_of
from tests.fixtures.machines import MakeMachine
from tests.fixtures.pace import pause

#: Where the run keeps pictures of the pages, if anywhere.
PICTURES = "MEMBRIDGE_CONSOLE_PICTURES"
#: Sizes of a picture by name.
SIZES = {"light": (1280, 860), "dark": (1280, 860), "tablet": (800, 1000), "phone": (390, 844)}


@dataclass(frozen=True)
class Seen:
    """A memory on two machines, the gateway, and a browser."""

    browser: Browser
    gateway: Gateway
    nodes: tuple[NodeProcess, ...]

    @property
    def url(self) -> str:
        """The address of the console."""
        return f"http://127.0.0.1:{self.gateway.where.port}/console"

    async def open(self, path: str = "/") -> None:
        """Open an address of the console and wait until it is live."""
        await self.browser.run(
            """await page.goto(url);
            await page.locator("#connection.ok").waitFor();""",
            url=self.url + path,
        )

    async def picture(self, name: str, *, page: str = "page", full: bool = True) -> None:
        """Keep pictures of the page that is open, in each theme and width."""
        folder = os.environ.get(PICTURES)
        if not folder:
            return
        for kind, (width, height) in SIZES.items():
            await self.browser.run(
                f"""await {page}.setViewportSize({{ width, height }});
                await {page}.emulateMedia({{ colorScheme: scheme }});
                await {page}.waitForTimeout(250);
                await {page}.evaluate(() => scrollTo(0, 0));
                await {page}.screenshot({{ path, fullPage: full }});""",
                width=width, height=height, scheme="dark" if kind == "dark" else "light",
                path=str(Path(folder) / f"{re.sub(r'[^a-z0-9]+', '-', name)}-{kind}.png"), full=full,
            )  # fmt: skip
        await self.browser.run(f"await {page}.setViewportSize({{ width: 1280, height: 800 }});")

    async def is_accessible(self) -> None:
        """Fail for what axe finds serious, in both themes, and for what the page complained of."""
        for scheme in ("light", "dark"):
            found = await self.browser.run(
                "await page.emulateMedia({ colorScheme: scheme }); return await audit(page);", scheme=scheme
            )
            assert not found, (scheme, found)
        assert await self.browser.complaints() == []


@pytest.fixture(scope="session")
def browser_parts() -> BrowserParts:
    return fetch()


@pytest.fixture
async def browser(browser_parts: BrowserParts) -> AsyncGenerator[Browser]:
    async with browsing(browser_parts) as made:
        yield made


@pytest.fixture
async def seen(bus: Bus, nats_url: str, make_machine: MakeMachine, browser: Browser) -> AsyncGenerator[Seen]:
    """Two machines: `desk` leads with the sample memory, `laptop` follows."""
    desk, laptop = make_machine("desk", memory=True), make_machine("laptop")
    await desk.start()
    async with gateway_of(bus, nats_url, desk.home, MEMBRIDGE_NODE_ID="desk") as gateway:
        await _until_led(gateway, "desk")
        await laptop.start()
        async with asyncio.timeout(SOON):
            while len((await gateway.get("/api/membridge/projects"))["projects"][0]["nodes"]) < 2:
                await pause()
        yield Seen(browser, gateway, (desk, laptop))


async def _until_led(gateway: Gateway, node: str) -> None:
    async with asyncio.timeout(SOON):
        while True:
            listed = (await gateway.get("/api/membridge/projects"))["projects"]
            if listed and listed[0]["primary_node_id"] == node and listed[0]["head_seq"] >= 1:
                return
            await pause()
