"""The console's frame in a real browser."""

import pytest

from tests.console.conftest import Seen

pytestmark = pytest.mark.real


async def test_without_a_key_the_overview_is_there_at_once(seen: Seen) -> None:
    await seen.open()
    title = await seen.browser.run("await page.getByRole('link', { name: 'shared' }).waitFor(); return page.title();")
    assert title == "Overview · Membridge"
    await seen.picture("overview")
    await seen.is_accessible()
