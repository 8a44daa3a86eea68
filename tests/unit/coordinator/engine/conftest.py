"""The scene that most tests of the engine begin with."""

import pytest

from tests.fixtures.task_engine.scene import Scene


@pytest.fixture
def scene() -> Scene:
    """A worker that runs a task."""
    made = Scene()
    made.node("w")
    made.run("t")
    return made
