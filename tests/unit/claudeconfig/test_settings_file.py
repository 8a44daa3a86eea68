"""settings.json: what of it is portable, and what a change of that part leaves as it was."""

from typing import Any

import pytest

from membridge.claudeconfig import settings_file
from membridge.claudeconfig.home_paths import Homes
from membridge.errors import InvalidRequestError

HOMES = Homes("/home/me", "/home/me/.claude")


def hook(command: str, **more: Any) -> dict[str, Any]:
    return {"matcher": "", "hooks": [{"type": "command", "command": command, **more}]}


def portable(full: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any], set[str]]:
    found = settings_file.portable(full, HOMES)
    return found.settings, found.plugins, {one.key for one in found.stays}


def test_only_keys_on_the_list_travel() -> None:
    settings, plugins, stays = portable({
        "model": "opus", "env": {"A": "1"}, "apiKeyHelper": "x", "awsAuthRefresh": "x", "otelHeadersHelper": "x",
        "autoMemoryDirectory": "/x", "forceLoginMethod": "x", "sandbox": {}, "somethingNew": 1, "theme": "dark",
        "permissions": {"allow": ["Bash"], "deny": ["Read(.env)"], "ask": ["WebFetch"], "additionalDirectories": ["/x"],
                        "defaultMode": "acceptEdits"},
    })  # fmt: skip

    assert settings == {
        "model": "opus", "theme": "dark", "permissions": {"deny": ["Read(.env)"], "ask": ["WebFetch"]},
    }  # fmt: skip
    assert plugins == {}
    assert stays == {
        "env", "apiKeyHelper", "awsAuthRefresh", "otelHeadersHelper", "autoMemoryDirectory", "forceLoginMethod",
        "sandbox", "somethingNew", "permissions.allow", "permissions.additionalDirectories", "permissions.defaultMode",
    }  # fmt: skip


def test_a_value_that_names_a_folder_of_this_machine_stays() -> None:
    settings, _, stays = portable({
        "companyAnnouncements": ["see /home/me/x"], "permissions": {"deny": ["Read(/home/you/**)"], "ask": "odd"},
    })  # fmt: skip

    assert settings == {}
    assert stays == {"companyAnnouncements", "permissions.deny", "permissions.ask"}


@pytest.mark.parametrize(
    ("command", "travels"),
    [
        ("/home/me/.claude/hooks/a.sh --x", "$HOME/.claude/hooks/a.sh --x"), ("echo done", "echo done"),
        ('"/home/me/.claude/hooks/a b.sh"', '"$HOME/.claude/hooks/a b.sh"'), ("node $HOME/.claude/a.js", None),
        ("/usr/bin/notify-send x", ""), ("/home/me/bin/x", ""), ("~/bin/x", ""), ("bash '/home/me/.claude/x.sh'", ""),
        ("python3 /opt/x.py", ""), ("", ""),
    ],
)  # fmt: skip
def test_a_hook_travels_if_its_command_means_the_same_elsewhere(command: str, travels: str | None) -> None:
    settings, _, stays = portable({"hooks": {"Stop": [hook(command)]}})

    if travels == "":
        # An empty command runs nothing anywhere.
        assert (settings, stays) == (({}, {"hooks.Stop[0]"}) if command else ({"hooks": {"Stop": [hook("")]}}, set()))
    else:
        assert settings == {"hooks": {"Stop": [hook(travels or command)]}}


def test_a_hook_of_another_kind_or_with_a_path_in_its_arguments_stays() -> None:
    _, _, stays = portable({
        "hooks": {"Stop": [
            {"hooks": [{"type": "http", "url": "http://x"}]}, hook("node", args=["/home/me/.claude/x.js"]),
            {"hooks": []}, "odd", hook("fine"),
        ], "Odd": "odd"},
        "statusLine": {"type": "command", "command": "/opt/line"},
    })  # fmt: skip

    assert stays == {"hooks.Stop[0]", "hooks.Stop[1]", "hooks.Stop[2]", "hooks.Stop[3]", "statusLine"}


def test_a_change_keeps_what_does_not_travel_where_it_was() -> None:
    full = {
        "zz": 1, "hooks": {"Stop": [hook("/opt/own"), hook("old")], "Own": [hook("/opt/own")]},
        "permissions": {"allow": ["Bash"], "deny": ["a"]}, "model": "opus", "language": "en",
    }  # fmt: skip
    before = settings_file.portable(full, HOMES).settings
    after = {"hooks": {"Stop": [hook("new")]}, "permissions": {"deny": ["b"]}, "model": "sonnet", "effortLevel": "high"}

    changed = settings_file.changed(full, before, after, HOMES)

    assert list(changed) == ["zz", "hooks", "permissions", "model", "effortLevel"]
    assert changed["hooks"] == {"Stop": [hook("new"), hook("/opt/own")], "Own": [hook("/opt/own")]}
    assert changed["permissions"] == {"allow": ["Bash"], "deny": ["b"]}
    assert settings_file.portable(changed, HOMES).settings == after


def test_what_was_deleted_goes_and_leaves_no_empty_object() -> None:
    full = {"hooks": {"Stop": [hook("x")]}, "permissions": {"deny": ["a"]}, "statusLine": {"type": "x"}}
    before = settings_file.portable(full, HOMES).settings

    assert settings_file.changed(full, before, {}, HOMES) == {"statusLine": {"type": "x"}}


@pytest.mark.parametrize("body", [b"[]", b'"x"', b"{", b'{"a": NaN}', b"\xff", b"[" * 100_000])
def test_a_file_that_is_no_json_object_stops_everything(body: bytes) -> None:
    with pytest.raises(InvalidRequestError, match=r"settings\.json"):
        settings_file.read(body)


def test_no_file_and_an_empty_one_have_no_settings() -> None:
    assert settings_file.read(None) == settings_file.read(b" \n") == {}
