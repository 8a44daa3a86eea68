"""The console's frame in a real browser: login, one stream for all tabs, and what is cut off from what."""

import pytest

from tests.console.conftest import Seen

pytestmark = pytest.mark.real


async def test_without_a_key_the_overview_is_there_at_once(seen: Seen) -> None:
    await seen.nodes[1].write(6, "Wire the relay")
    await seen.open()
    title = await seen.browser.run(
        """await page.getByRole('cell', { name: 'laptop' }).first().waitFor();
        await page.locator('.timeline li').nth(1).waitFor();
        return page.title();"""
    )
    assert title == "Overview · Membridge"
    await seen.picture("overview")
    await seen.browser.run(
        "await page.getByRole('button', { name: 'Details of laptop' }).click(); await page.waitForTimeout(800);"
    )
    await seen.picture("overview open")
    await seen.is_accessible()
