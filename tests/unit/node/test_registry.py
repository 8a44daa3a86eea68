"""The projects of a node: those of the settings, those added, never two on one database."""

from pathlib import Path

import pytest

from membridge.errors import InvalidRequestError
from membridge.node import registry
from membridge.settings import Settings, load


def settings_in(home: Path) -> Settings:
    return load({"MEMBRIDGE_STATE_DIR": str(home / "state"), "CLAUDE_PROJECT_ID": "first"}, home)


def test_an_added_project_is_there_after_a_restart(tmp_path: Path) -> None:
    registry.add(settings_in(tmp_path), "second", str(tmp_path / "second.db"))
    assert [config.name for config in registry.load(settings_in(tmp_path))] == ["first", "second"]


def test_adding_a_project_twice_changes_nothing(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    one = registry.add(settings, "second", str(tmp_path / "second.db"))
    assert registry.add(settings, "second", None) == one
    assert registry.add(settings, "second", str(tmp_path / "second.db")) == one
    assert len(registry.load(settings)) == 2


def test_two_projects_never_share_a_database(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    with pytest.raises(InvalidRequestError, match="already uses"):
        registry.add(settings, "second", None)
    (tmp_path / "link.db").symlink_to(settings.projects[0].database)
    with pytest.raises(InvalidRequestError, match="already uses"):
        registry.add(settings, "second", str(tmp_path / "link.db"))


@pytest.mark.parametrize(("name", "database"), [("", None), ("x" * 300, None), ("ok", "relative.db")])
def test_what_is_no_project_is_refused(tmp_path: Path, name: str, database: str | None) -> None:
    with pytest.raises(InvalidRequestError):
        registry.add(settings_in(tmp_path), name, database)


def test_a_damaged_list_is_an_error_and_not_an_empty_one(tmp_path: Path) -> None:
    settings = settings_in(tmp_path)
    registry.add(settings, "second", str(tmp_path / "second.db"))
    (tmp_path / "state" / "projects.json").write_bytes(b"{")
    with pytest.raises(InvalidRequestError, match="cannot be read"):
        registry.load(settings)
