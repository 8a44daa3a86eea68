"""Every spelling of a remote is one key; a folder has none."""

import pytest

from membridge.claudeconfig import memory_keys

KEY = "memory/github.com/owner/name"


@pytest.mark.parametrize(
    "remote",
    [
        "git@github.com:Owner/Name.git", "git@github.com:owner/name", "https://github.com/owner/name.git",
        "https://user:token@github.com/Owner/name/", "ssh://git@github.com:22/owner/name.git", "github.com:owner/name",
        "git+ssh://git@GitHub.com/owner/name", "git://github.com/owner/name.git\n",
    ],
)  # fmt: skip
def test_every_spelling_is_one_key(remote: str) -> None:
    assert memory_keys.of_remote(remote) == KEY


def test_a_group_of_groups_is_kept() -> None:
    assert memory_keys.of_remote("git@gitlab.example:a/b/c/d.git") == "memory/gitlab.example/a/b/c/d"


@pytest.mark.parametrize(
    "remote",
    ["", "/srv/git/x.git", "file:///srv/x", "../x", "C:\\x", "c:/x", "https://host/../../etc", "git@host.example:../x",
     "https://host/.hidden/x", "ext::sh -c evil", "-oProxyCommand=x"],
)  # fmt: skip
def test_what_only_this_machine_knows_has_no_key(remote: str) -> None:
    assert memory_keys.of_remote(remote) is None


def test_an_alias_is_a_name_and_nothing_else() -> None:
    assert memory_keys.of_alias("notes") == "memory/alias/notes"
    assert [memory_keys.of_alias(name) for name in ("", "a/b", "..", "a b", "x" * 65)] == [None] * 5


def test_the_name_of_a_projects_folder() -> None:
    assert memory_keys.folder_name("/home/me/a.b_c") == ("-home-me-a-b-c", True)
    assert memory_keys.folder_name("/" + "x" * 300) == ("-" + "x" * 199 + "-", False)
