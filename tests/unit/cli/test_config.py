"""`membridge config`."""

import json
from pathlib import Path

import pytest

from membridge.cli.main import main
from membridge.settings import render_reference


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    return tmp_path


def test_show_prints_each_value_with_its_source(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MINIO_SECRET_KEY", "hunter2")
    monkeypatch.setenv("MEMBRIDGE_QUIET_SECONDS", "7")

    assert main(["config"]) == 0

    out = capsys.readouterr().out
    lines = {line.split()[0]: line.split()[1:] for line in out.splitlines() if line.strip()}
    assert lines["store.secret_key"] == ["***", "env", "MINIO_SECRET_KEY"]
    assert lines["lane.quiet_seconds"][:2] == ["7", "seconds"]
    assert lines["lane.auto_sync"] == ["true", "default"]
    assert "hunter2" not in out


def test_show_as_json_has_warnings_too(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    legacy = home / ".claude-mem-minio" / "config.env"
    legacy.parent.mkdir()
    legacy.write_text("MINIO_SECRET_KEY=s\n", encoding="utf-8")
    legacy.chmod(0o644)

    assert main(["config", "show", "--json"]) == 0

    found = json.loads(capsys.readouterr().out)
    settings = {item["key"]: item for item in found["settings"]}
    assert settings["store.secret_key"]["value"] == "***"
    assert settings["store.secret_key"]["origin"] == str(legacy)
    assert "chmod 600" in found["warnings"][0]


def test_path_tells_where_files_are_looked_for(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "path"]) == 0

    assert capsys.readouterr().out.splitlines() == [
        f"{home}/.config/membridge/config.toml  (does not exist)",
        f"{home}/.config/membridge/enrolled.toml  (does not exist)",
        f"{home}/.claude-mem-minio/config.env  (does not exist)",
    ]


def test_path_works_while_the_settings_are_wrong(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MEMBRIDGE_STORE", "nope")

    assert main(["config", "path", "--json"]) == 0

    assert json.loads(capsys.readouterr().out)["files"][0]["found"] is False


def test_reference_prints_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "reference"]) == 0

    assert capsys.readouterr().out == render_reference()
