"""The projects of a node: those of the settings, those added, never two on one database."""

from pathlib import Path

import pytest

from membridge.errors import InvalidRequestError, UnknownProjectError
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


FOLDERS = """
[[projects]]
name = "work"
database = "~/work.db"
folders = ["~/work", "~/clients"]
[[projects]]
name = "inner"
database = "~/inner.db"
folders = ["~/work/inner"]
"""


@pytest.fixture
def with_folders(tmp_path: Path) -> Settings:
    config = tmp_path / ".config" / "membridge" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(FOLDERS)
    return settings_in(tmp_path)


@pytest.mark.parametrize(
    ("folder", "project"),
    [
        ("work", "work"),
        ("work/a/b", "work"),
        ("clients/x", "work"),
        ("work/inner/deep", "inner"),
        ("working", "first"),
        ("", "first"),
    ],
)
def test_a_session_belongs_to_the_project_with_the_nearest_folder(
    with_folders: Settings, tmp_path: Path, folder: str, project: str
) -> None:
    assert registry.of_session(with_folders, None, str(tmp_path / folder)).name == project


def test_a_folder_is_known_by_its_real_path_too(with_folders: Settings, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "work").symlink_to(tmp_path / "disk")
    assert registry.of_session(with_folders, None, str(tmp_path / "disk" / "a")).name == "work"


def test_a_session_whose_hooks_name_a_project_belongs_to_it_wherever_it_runs(
    with_folders: Settings, tmp_path: Path
) -> None:
    registry.add(with_folders, "added", str(tmp_path / "added.db"))
    for name in ("first", "inner", "added"):
        found = registry.of_session(with_folders, name, str(tmp_path / "work"))
        assert found.name == name
        assert registry.of_session(with_folders, found.id, "").name == name
    with pytest.raises(UnknownProjectError):
        registry.of_session(with_folders, "another", str(tmp_path / "work"))


def test_a_folder_that_no_path_can_be_is_of_the_first_project(with_folders: Settings) -> None:
    assert registry.of_session(with_folders, None, "relative\udcff\0").name == "first"
