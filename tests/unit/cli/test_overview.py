"""The overview that `membridge up` prints."""

from pathlib import Path

from membridge.cli.overview import overview
from membridge.node import registry
from membridge.settings import load


def test_projects_that_were_added_are_printed_too(tmp_path: Path) -> None:
    settings = load({"MEMBRIDGE_NODE_ID": "a"}, tmp_path)
    registry.add(settings, "work", str(tmp_path / "work.db"))

    told = {line.strip().partition("  ")[0]: line.split()[-1] for line in overview(settings, []).splitlines()}

    assert told["project claude-mem"] == str(settings.project.database)
    assert told["project work"] == str(tmp_path / "work.db")
