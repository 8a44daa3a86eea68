"""Overview and Project in a real browser: what arrives live, and what the buttons do."""

import pytest

from tests.console.conftest import Seen

pytestmark = pytest.mark.real


async def test_each_part_of_a_project(seen: Seen) -> None:
    for count in (4, 7, 2):
        await seen.nodes[1].write(count, f"Wire relay {count}")
        await seen.nodes[1].command("push")
    for tab in ("now", "history", "conflicts", "quarantine", "backups", "doctor", "jobs"):
        await seen.open(f"/projects/shared?tab={tab}")
        await seen.browser.run("await page.locator('main h1').waitFor(); await page.waitForTimeout(1200);")
        await seen.picture(f"project {tab}")
        await seen.is_accessible()
