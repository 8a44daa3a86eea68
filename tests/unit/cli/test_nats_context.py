"""`membridge nats-context`: which file it writes, for whom, and what it leaves alone."""

import json
import stat
from pathlib import Path

import pytest

from membridge.access import loopback
from membridge.cli.main import main
from membridge.system.pidfile import only_one


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home in which `membridge up` has made its keys."""
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "STATE_DIRECTORY", "CONFIGURATION_DIRECTORY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MEMBRIDGE_NODE_ID", "a")
    loopback.provide(tmp_path / ".local" / "state" / "membridge")
    return tmp_path


def context(home: Path, name: str = "membridge") -> Path:
    return home / ".config" / "nats" / "context" / f"{name}.json"


def test_it_signs_in_with_the_operators_key(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nats-context"]) == 0

    said = json.loads(context(home).read_text())
    key = loopback.place(home / ".local" / "state" / "membridge").operator
    assert (said["url"], said["nkey"]) == ("nats://127.0.0.1:4222", str(key))
    assert [stat.S_IMODE(path.stat().st_mode) for path in (context(home), key)] == [0o600, 0o600]
    assert stat.S_IMODE(context(home).parent.stat().st_mode) == 0o700
    assert "nats --context membridge request membridge.d6b6dd7bdf7b55f6.primary.status" in capsys.readouterr().out


def test_it_goes_where_the_nats_cli_looks(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "elsewhere"))

    assert main(["nats-context"]) == 0
    assert (home / "elsewhere" / "nats" / "context" / "membridge.json").is_file()


def test_ours_is_written_again_and_anothers_stays(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nats-context"]) == 0
    written = context(home).read_text()
    context(home).write_text(written.replace("4222", "4333"))
    assert main(["nats-context"]) == 0
    assert context(home).read_text() == written

    context(home).write_text('{"description": "mine"}')
    assert main(["nats-context"]) == 1
    assert "--name" in capsys.readouterr().err
    assert context(home).read_text() == '{"description": "mine"}'
    # The remedy, in that situation.
    assert main(["nats-context", "--name", "other"]) == 0
    assert context(home, "other").read_text() == written


@pytest.mark.parametrize("name", ["", "../up", "a b", "a/b", "ä"])
def test_a_name_is_a_file_in_that_folder(home: Path, name: str) -> None:
    assert main(["nats-context", "--name", name]) == 1
    assert not context(home).parent.exists()


def test_a_server_without_users_needs_none_and_up_makes_keys(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state = home / ".local" / "state" / "membridge"
    loopback.place(state).node.unlink()

    assert main(["nats-context"]) == 1
    said = capsys.readouterr().err
    assert "the server at nats://127.0.0.1:4222 has no users" in said
    assert "run `nats --server nats://127.0.0.1:4222` without a context" in said
    assert "the server of `membridge up`, which has keys" in said
    with only_one(state, "up"):
        assert main(["nats-context"]) == 1
    said = capsys.readouterr().err
    assert "has no users" not in said
    assert "membridge config show" in said
    assert not context(home).exists()
    # What `up` does at its start.
    loopback.provide(state)
    assert main(["nats-context"]) == 0


def test_with_a_server_of_ones_own_it_signs_in_as_this_node(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMBRIDGE_NATS_URL", "tls://node:pw@hub.example.org:4222")

    assert main(["nats-context"]) == 0
    said = json.loads(context(home).read_text())
    assert (said["url"], said["nkey"]) == ("tls://node:pw@hub.example.org:4222", "")
