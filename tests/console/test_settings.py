"""The page of settings in a real browser: keys, invitations, the server, effective settings, and eight tabs."""

import asyncio
import json
from pathlib import Path

import pytest

from membridge.bus.connection import Bus
from schemas.web import Role
from tests.console.browser import Browser
from tests.console.conftest import Seen
from tests.fixtures.gateway import SOON, Gateway, gateway_of
from tests.fixtures.pace import pause
from tests.integration.access.sites import site
from tests.integration.gateway.test_process import logged, settings, web_of

pytestmark = pytest.mark.real

LOG_IN = """await page.goto(url);
    await page.getByLabel("API key").fill(key);
    await page.getByRole("button", { name: "Log in" }).click();
    await page.locator("#connection.ok").waitFor();"""


async def test_a_key_is_made_used_and_revoked(bus: Bus, nats_url: str, tmp_path: Path, browser: Browser) -> None:
    async with gateway_of(bus, nats_url, tmp_path, RUNTIME_API_KEY="r" * 24) as gateway:
        seen, run = Seen(browser, gateway, ()), browser.run
        admin = await gateway.key(Role.ADMIN, "*")
        await run(LOG_IN, url=f"{seen.url}/settings/keys", key=admin)
        await run(
            """await page.getByLabel("Name").fill("ci");
            await page.getByLabel("Role").selectOption("reader");
            await page.getByLabel("memory", { exact: true }).uncheck();
            await page.getByRole("button", { name: "Review and create" }).click();
            await page.getByText("reader of tasks").waitFor();"""
        )
        assert len((await gateway.get("/api/v1/keys", key=admin))["keys"]) == 1
        await run("await page.getByRole('button', { name: 'Create the key' }).click();")
        secret = await run("return page.locator('.secret pre').innerText();")
        assert secret.startswith("mbk_")
        await seen.picture("settings-keys")
        await seen.is_accessible()
        # It works, its use is listed, and after "I have it" nothing on the page has it.
        async with asyncio.timeout(SOON):
            while (await gateway.ask("GET", "/api/runtime/stats", key=secret)).status == 401:
                await pause()
        await run(
            """await page.getByRole("button", { name: "I have it" }).click();
            await page.locator(".secret").waitFor({ state: "detached" });"""
        )
        assert secret not in await run("return page.content();")
        await run(
            """const row = page.locator("tr", { hasText: "ci" });
            await row.getByRole("button", { name: "Review and revoke" }).click();
            await page.getByText("is refused within a second").waitFor();
            await page.getByRole("button", { name: "Revoke ci" }).click();
            await row.getByText("revoked").waitFor();"""
        )
        async with asyncio.timeout(SOON):
            while (await gateway.ask("GET", "/api/runtime/stats", key=secret)).status != 401:
                await pause()
        # A key that is made elsewhere comes by itself.
        await gateway.post(
            "/api/v1/keys", {"name": "by a script", "role": "reader", "scopes": ["tasks"]}, status=201,
            key=admin,
        )  # fmt: skip
        await run("await page.locator('tr', { hasText: 'by a script' }).waitFor();")
        assert await browser.complaints() == []


async def test_the_server_is_set_and_tested_and_settings_show_their_origin(
    bus: Bus, nats_url: str, tmp_path: Path, browser: Browser
) -> None:
    async with gateway_of(bus, nats_url, tmp_path) as gateway:
        seen, run = Seen(browser, gateway, ()), browser.run
        other = f"http://127.0.0.1:{gateway.where.port}"
        await seen.open("/settings")
        await run(
            """await page.getByLabel("Address of the other server").fill(other);
            await page.getByLabel("Its administrator's key").fill("k-1234567890-abcd");
            await page.getByRole("button", { name: "Review and save" }).click();
            await page.locator("dialog").getByText(other).waitFor();
            await page.getByRole("button", { name: "Save", exact: true }).click();
            await page.getByText("Saved").waitFor();
            await page.getByRole("button", { name: "Test the connection" }).click();
            await page.getByText(/Connected in/).waitFor();""",
            other=other,
        )
        assert (await gateway.get("/api/runtime/config"))["admin_key"] == "…abcd"
        assert "k-1234567890" not in await run("return page.content();")
        await seen.picture("settings")
        await seen.is_accessible()
        # How it answered last is shown to whoever opens the page: its key is wrong, which its health does not need.
        await run(
            """await page.reload();
            await page.getByText(/last request: http.*answers 401/).waitFor();
            await page.getByLabel("Address of the other server").fill("http://127.0.0.1:9");
            await page.getByRole("button", { name: "Review and save" }).click();
            await page.getByRole("button", { name: "Save", exact: true }).click();
            await page.getByText("Saved").waitFor();
            await page.getByRole("button", { name: "Test the connection" }).click();
            await page.getByText("Not connected").waitFor();"""
        )
        await seen.picture("settings-not-connected")
        await run("await page.reload(); await page.getByText(/last request: http.*does not answer/).waitFor();")
        await run(
            """await page.getByRole("link", { name: "Effective" }).click();
            await page.getByRole("searchbox", { name: "Search" }).fill("gateway.listen");
            await page.getByText("env MEMBRIDGE_GATEWAY_LISTEN").waitFor();
            await page.getByRole("searchbox", { name: "Search" }).fill("");
            await page.getByLabel("From").selectOption("set");
            await page.locator(".list tr").nth(2).waitFor();"""
        )
        await seen.picture("settings-effective")
        await seen.is_accessible()
        # What needs an administrator's key says so, with the command that makes one.
        await run(
            """await page.getByRole("link", { name: "API keys" }).click();
            await page.getByText("membridge api-key new console").waitFor();"""
        )
        await seen.picture("settings-forbidden")
        await seen.is_accessible()
        await run(
            """await page.getByRole("link", { name: "Invitations" }).click();
            await page.getByRole("button", { name: "Log in with a key" }).click();
            await page.getByLabel("API key").fill(key);
            await page.getByRole("button", { name: "Log in" }).click();
            await page.getByText("this server takes no other machines").waitFor();""",
            key=await gateway.key(Role.ADMIN, "*"),
        )
        assert await browser.complaints() == []


async def test_a_machine_is_invited_joins_and_another_invitation_is_revoked(tmp_path: Path, browser: Browser) -> None:
    async with site(tmp_path, RUNTIME_API_KEY="r" * 24, **settings()) as place:
        web, run = web_of(place.host), browser.run
        await logged(place.host, '"event":"listening"')
        # The command that the page names where a key may not do this.
        scopes = ("--scope", "tasks", "--scope", "memory", "--scope", "keys", "--scope", "access")
        code, told = await place.host.command("api-key", "new", "console", *scopes, "--json")
        assert code == 0, told
        at = f"http://127.0.0.1:{web.port}/console/settings/invitations"
        await run(LOG_IN, url=at, key=json.loads(told)["secret"])
        await run(
            """await page.getByText("No invitation yet").waitFor();
            await page.getByLabel("Note").fill("my laptop");
            await page.getByLabel("Only for the name").fill("b");
            await page.getByRole("button", { name: "Review and invite" }).click();
            await page.getByText("may join within 1 hour").waitFor();
            await page.getByRole("button", { name: "Make the invitation" }).click();"""
        )
        line = (await run("return page.locator('.secret pre').innerText();")).removeprefix("membridge join ")
        seen = Seen(browser, Gateway(web, None), ())  # type: ignore[arg-type] - nothing here asks the bus
        await seen.picture("settings-invitations")
        await seen.is_accessible()
        code, output = await place.machine("b").command("join", line, "--once")
        assert code == 0, output
        await run(
            """await page.reload();
            const row = page.locator("tr", { hasText: "my laptop" });
            await row.getByText("used", { exact: true }).waitFor();
            await row.getByText("b", { exact: false }).first().waitFor();
            await page.getByLabel("Note").fill("lost");
            await page.getByRole("button", { name: "Review and invite" }).click();
            await page.getByRole("button", { name: "Make the invitation" }).click();
            await page.getByRole("button", { name: "I have it" }).click();
            const lost = page.locator("tr", { hasText: "lost" });
            await lost.getByRole("button", { name: "Review and revoke" }).click();
            await page.getByRole("button", { name: "Revoke the invitation" }).click();
            await lost.getByText("revoked", { exact: true }).waitFor();"""
        )
        assert await browser.complaints() == []
