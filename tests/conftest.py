"""What every test gets: real servers from `tests.fixtures`, and a check that it leaves no task behind."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

pytest_plugins = [
    "tests.fixtures.nats",
    "tests.fixtures.seaweed",
    "tests.fixtures.databases",
    "tests.fixtures.lanes",
    "tests.fixtures.machines",
    "tests.fixtures.tasks",
]


@pytest.fixture(autouse=True)
async def no_orphan_tasks() -> AsyncGenerator[None]:
    """Fail the test that leaves a task behind."""
    before = asyncio.all_tasks()
    yield
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    assert not left, [task.get_name() for task in left if task]
