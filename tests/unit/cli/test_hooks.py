"""`membridge install hooks` and `membridge uninstall hooks`, as they are typed."""

import json
import shlex
from pathlib import Path

import pytest

from membridge.claudecode.place import is_old
from membridge.cli import main as cli
from schemas.errors import TABLE, ErrorCode


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A home with Claude Code of the newest version."""
    home = tmp_path / "home"
    home.mkdir()
    for name in ("CLAUDE_CONFIG_DIR", "CLAUDE_PROJECT_ID", "XDG_STATE_HOME", "MEMBRIDGE_STATE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    has_version(monkeypatch, tmp_path, "2.1.329")
    return home


def has_version(monkeypatch: pytest.MonkeyPatch, folder: Path, version: str) -> None:
    program = folder / "claude"
    program.write_text(f"#!/bin/sh\necho '{version} (Claude Code)'\n")
    program.chmod(0o700)
    monkeypatch.setenv("MEMBRIDGE_CLAUDE", str(program))


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, object]:
    assert cli.main([*arguments, "--json"]) == 0
    answer: dict[str, object] = json.loads(capsys.readouterr().out)
    return answer


def test_the_plugin_comes_and_goes(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plugin = home / ".claude" / "skills" / "membridge"

    reply = said(capsys, "install", "hooks", "--project", "boat")

    assert reply == {
        "plugin": str(plugin), "version": "2.1.329", "settings": str(home / ".claude" / "settings.json"),
        "changed_settings": False, "old_hooks": [], "replaced_old": False,
    }  # fmt: skip
    assert not (home / ".claude" / "settings.json").exists()
    paths = json.loads((plugin / "paths.json").read_text())
    assert paths["project"] == "boat"
    assert paths["wait_seconds"] == 5.0
    assert Path(paths["run"]) == home / ".local" / "state" / "membridge" / "run"
    assert (home / ".local" / "state" / "membridge" / "spool" / "new").is_dir()

    assert said(capsys, "uninstall", "hooks")["removed"] is True
    assert list(home.iterdir()) == []
    assert said(capsys, "uninstall", "hooks")["removed"] is False


def test_the_folder_of_claude_code_may_be_another(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CLAUDE_CONFIG_DIR", str(home / "claude config"))

    assert said(capsys, "install", "hooks")["plugin"] == str(home / "claude config" / "skills" / "membridge")

    assert not (home / ".claude").exists()


def test_a_version_that_loads_no_folders_gets_hooks_in_its_settings(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    has_version(monkeypatch, tmp_path, "2.1.156")

    assert said(capsys, "install", "hooks")["changed_settings"] is True

    hooks = json.loads((home / ".claude" / "settings.json").read_text())["hooks"]
    assert set(hooks) == {"SessionStart", "UserPromptSubmit", "Stop", "SessionEnd"}
    for event, groups in hooks.items():
        for words in (shlex.split(hook["command"]) for group in groups for hook in group["hooks"]):
            assert Path(words[1]).is_file()
            assert words[2:] == ([event] if words[1].endswith("event.sh") else [])
    said(capsys, "uninstall", "hooks")
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("option", [[], ["--replace-old"]])
def test_old_hooks_are_reported_and_replaced_on_request(
    home: Path, capsys: pytest.CaptureFixture[str], option: list[str]
) -> None:
    old = [
        "claude-mem-hook-pull --project claude-mem",
        "~/.claude-mem-minio/bin/claude-mem-hook-push",
        'bash "$HOME/.claude-mem-minio/bin/claude-mem-hook-push.sh"',
        "~/.claude-mem-minio/bin/sync-now",
    ]
    assert all(map(is_old, old))
    settings = home / ".claude" / "settings.json"
    settings.parent.mkdir()
    text = json.dumps({"hooks": {"Stop": [{"hooks": [{"type": "command", "command": one} for one in old]}]}})
    settings.write_text(text)

    assert cli.main(["install", "hooks", *option]) == 0

    page = capsys.readouterr().out
    assert (settings.read_text() == text) is not bool(option)
    assert not option or json.loads(settings.read_text()) == {}
    assert option or "`membridge install hooks --replace-old`" in page
    assert cli.main(["uninstall", "hooks"]) == 0
    assert settings.read_text() == text


def test_without_claude_code_the_folder_is_there_for_later(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MEMBRIDGE_CLAUDE", str(home / "nowhere"))

    assert cli.main(["install", "hooks"]) == 0

    assert "2.1.157" in capsys.readouterr().out
    assert (home / ".claude" / "skills" / "membridge" / ".claude-plugin" / "plugin.json").exists()


def test_a_skill_of_that_name_is_an_error(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / ".claude" / "skills" / "membridge").mkdir(parents=True)
    (home / ".claude" / "skills" / "membridge" / "SKILL.md").write_text("mine")

    assert cli.main(["install", "hooks"]) == TABLE[ErrorCode.CONFLICT].exit

    assert "not Membridge's plugin" in capsys.readouterr().err
