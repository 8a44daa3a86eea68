"""What is recognised of claude-mem-minio, its server and its agent."""

import json
from pathlib import Path

import pytest

from membridge.installation import old_tool


def put(file: Path, text: str = "") -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def found(home: Path, root: Path, **environ: str) -> dict[str, str]:
    return {one.kind: one.detail for one in old_tool.detect(home, environ, root)}


def test_nothing_is_found_in_an_empty_home(tmp_path: Path) -> None:
    assert old_tool.detect(tmp_path, {}, tmp_path) == []
    assert old_tool.pinned_id(tmp_path) is None


def test_everything_that_it_leaves_is_named(tmp_path: Path) -> None:
    home, root = tmp_path / "home", tmp_path / "root"
    env = put(home / "membridge/config.env", "CLAUDE_PROJECT_ID=garden\n")
    (home / ".claude-mem-minio/bin").mkdir(parents=True)
    (home / ".claude-mem-minio/config.env").symlink_to(env)
    put(home / ".claude-mem-minio/bin/claude-mem-push")
    hook = {"hooks": {"Stop": [{"hooks": [{"command": "~/.claude-mem-minio/bin/claude-mem-hook-push"}]}], "Other": []}}
    put(home / ".claude/settings.json", json.dumps(hook))
    put(home / "membridge/.env.agent")
    put(home / ".claude-mem-backups/1.db")
    put(home / ".membridge/agent_projects.json", '{"0f": {"project_id": "garden"}, "1f": {"project_id": "house"}}')
    put(root / "etc/systemd/system/membridge-agent.service")

    assert found(home, root) == {
        "settings": f"its settings, a link to {env.resolve()}; read as they are, never changed",
        "scripts": "claude-mem-push",
        "backups": "1 copies of the database",
        "hook": "Stop runs a script of the old tool",
        "checkout": "its program, with .env.agent",
        "service": "sudo systemctl disable --now membridge-agent",
        "projects": "garden, house",
    }


def test_the_checkout_is_looked_for_where_its_variable_says(tmp_path: Path) -> None:
    put(tmp_path / "elsewhere/sqlite_minio_sync.py")

    assert found(tmp_path, tmp_path, MEMBRIDGE_DIR=str(tmp_path / "elsewhere")) == {
        "checkout": "its program, with sqlite_minio_sync.py"
    }


@pytest.mark.parametrize("text", ["", "[", "null", '"x"', '{"hooks": 1}', '{"hooks": {"Stop": null}}', "[]"])
def test_settings_that_cannot_be_read_are_no_hooks(tmp_path: Path, text: str) -> None:
    put(tmp_path / ".claude/settings.json", text)

    assert old_tool.detect(tmp_path, {}, tmp_path) == []


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ('["b", "a"]', ["a", "b"]),
        ('[{"project": "a"}, {"project_id": "b"}, {"other": 1}]', ["a", "b"]),
        ('{"projects": [{"name": "a"}]}', ["a"]),
        ("[", []),
        ("7", []),
    ],
)
def test_projects_are_found_in_each_form_of_the_file(tmp_path: Path, text: str, names: list[str]) -> None:
    put(tmp_path / ".membridge/agent_projects.json", text)

    assert old_tool.projects(tmp_path) == names


@pytest.mark.parametrize(
    ("line", "pinned"),
    [
        ("CLAUDE_CANONICAL_PROJECT_ID=0123456789abcdef", "0123456789abcdef"),
        ('export CLAUDE_CANONICAL_PROJECT_ID="0123456789abcdef"  # pinned', "0123456789abcdef"),
        ("# CLAUDE_CANONICAL_PROJECT_ID=0123456789abcdef", None),
        ("CLAUDE_CANONICAL_PROJECT_ID=", None),
    ],
)
def test_a_pinned_id_is_read(tmp_path: Path, line: str, pinned: str | None) -> None:
    put(tmp_path / ".claude-mem-minio/config.env", f"A=1\n{line}\n")

    assert old_tool.pinned_id(tmp_path) == pinned
