"""Two machines for every test of merging."""

from pathlib import Path

import pytest

from tests.integration.merge.machines import Machine


@pytest.fixture
def machines(tmp_path: Path) -> tuple[Machine, Machine]:
    """Two machines that know the same: one pulled the other's first snapshot."""
    a, b = Machine.make("node-a", tmp_path, empty=False), Machine.make("node-b", tmp_path)
    b.pull(a.push(), a.source)
    return a, b
