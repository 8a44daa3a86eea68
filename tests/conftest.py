"""What every test gets: real servers from `tests.fixtures`, and a check that it leaves no task behind."""

import asyncio
from collections.abc import AsyncGenerator

import pytest
from hypothesis import settings

# The same examples on every run, and no example is failed by a busy machine; `just soak` and `just sweep` roll dice.
settings.register_profile("house", derandomize=True, deadline=None)
settings.load_profile("house")

pytest_plugins = [
    "tests.fixtures.nats",
    "tests.fixtures.seaweed",
    "tests.fixtures.databases",
    "tests.fixtures.lanes",
    "tests.fixtures.machines",
    "tests.fixtures.tasks",
    "tests.fixtures.heard",
]


@pytest.fixture(autouse=True)
async def no_orphan_tasks() -> AsyncGenerator[None]:
    """Fail the test that leaves a task behind."""
    before = asyncio.all_tasks()
    yield
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    assert not left, [task.get_name() for task in left if task]
