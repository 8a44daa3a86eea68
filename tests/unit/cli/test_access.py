"""`membridge join`: settings of one's own that would go before what it writes are named before the server is asked."""

from pathlib import Path

import pytest

from membridge.access import invitation
from membridge.access.invitation import Line
from membridge.access.nkeys import provide_key, read_seed
from membridge.cli.main import main

#: An address at which nothing listens: what is refused in another way got as far as the network.
NOWHERE = "tls://127.0.0.1:1"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("MEMBRIDGE_NODE_ID", "CLAUDE_PROJECT_ID", "MEMBRIDGE_NATS_URL", "XDG_CONFIG_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def line(home: Path, node: str | None = None) -> str:
    provide_key(home / "door.seed")
    said = Line(
        urls=[NOWHERE], fingerprint="0" * 64, id="0" * 16, secret="s" * 32, door=read_seed(home / "door.seed"),
        projects=["claude-mem"], node=node,
    )  # fmt: skip
    return invitation.write(said)


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("MEMBRIDGE_NODE_ID", "bob", "node.id is bob, set by env MEMBRIDGE_NODE_ID"),
        ("CLAUDE_PROJECT_ID", "other", "project.name is other, set by env CLAUDE_PROJECT_ID"),
        ("CLAUDE_MEM_DB", "/elsewhere.db", "project.database is /elsewhere.db, set by env CLAUDE_MEM_DB"),
        ("MEMBRIDGE_NATS_URL", "nats://hub:4222", "nats.urls, set by env MEMBRIDGE_NATS_URL"),
        ("MEMBRIDGE_NATS_KEYS_DIR", "/keys", "nats.keys_dir is /keys, set by env MEMBRIDGE_NATS_KEYS_DIR"),
    ],
)
def test_what_contradicts_is_named_with_where_it_is_set(
    home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    variable: str,
    value: str,
    says: str,
) -> None:
    monkeypatch.setenv(variable, value)

    assert main(["join", line(home), "--once", "--node", "b", "--database", str(home / "m.db")]) == 1

    assert says in capsys.readouterr().err
    assert not (home / ".config").exists()


def test_a_name_in_config_toml_contradicts_too_and_the_same_name_does_not(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = home / ".config" / "membridge" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text('[node]\nid = "bob"\n')

    assert main(["join", line(home, node="b"), "--once"]) == 1
    said = capsys.readouterr().err
    assert f"node.id is bob, set by {config}, and this join would make it b" in said
    assert "--node" not in said
    assert main(["join", line(home), "--once", "--node", "bob"]) != 0
    assert "cannot be reached" in capsys.readouterr().err
