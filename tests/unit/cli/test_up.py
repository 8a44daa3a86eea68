"""`membridge up` beside settings that name another server."""

import os
from pathlib import Path

import pytest

from membridge.cli.main import main
from membridge.settings import DEFAULT, load


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "STATE_DIRECTORY", "CONFIGURATION_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_a_server_elsewhere_in_the_environment_is_named_and_the_remedy_works(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MEMBRIDGE_NATS_URL", "nats://node:hidden@hub:4222")

    assert main(["up"]) == 1

    said = capsys.readouterr().err
    assert "nats.urls names nats://***@hub:4222" in said
    assert "remedy: unset MEMBRIDGE_NATS_URL, or run `membridge node`" in said
    monkeypatch.delenv("MEMBRIDGE_NATS_URL")
    assert load(os.environ, home).origins["nats.urls"] == DEFAULT


def test_a_server_elsewhere_in_the_file_is_named_and_the_remedy_works(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = home / ".config" / "membridge" / "config.toml"
    file.parent.mkdir(parents=True)
    file.write_text('[nats]\nurls = ["nats://hub:4222"]\n')

    assert main(["up"]) == 1

    assert f"remedy: remove nats.urls from {file}, or run `membridge node`" in capsys.readouterr().err
    file.write_text("[nats]\n")
    assert load(os.environ, home).origins["nats.urls"] == DEFAULT


def test_a_server_elsewhere_in_the_old_tools_file_is_named_as_that_file_spells_it(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = home / ".claude-mem-minio" / "config.env"
    file.parent.mkdir(parents=True)
    file.write_text("export MEMBRIDGE_NATS_URL=nats://hub:4222\n")

    assert main(["up"]) == 1

    assert f"remedy: remove MEMBRIDGE_NATS_URL from {file}, or run `membridge node`" in capsys.readouterr().err
    file.write_text("")
    assert load(os.environ, home).origins["nats.urls"] == DEFAULT
