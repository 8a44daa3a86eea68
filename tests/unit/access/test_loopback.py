"""The keys that `membridge up` makes for its server on loopback: whole after a kill, and used for that server."""

import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from membridge.access import loopback
from membridge.errors import CredentialsError
from membridge.settings import load

#: Make the keys, and be killed in place of the file that is put in place as number `argv[2]`.
KILLED = """\
import os, signal, sys
from pathlib import Path
from membridge.access import loopback
left = [int(sys.argv[2])]
def replace(self, target, really=Path.replace):
    left[0] -= 1
    return really(self, target) if left[0] else os.kill(os.getpid(), signal.SIGKILL)
Path.replace = replace
loopback.provide(Path(sys.argv[1]))
"""


@pytest.mark.parametrize("step", [1, 2, 3])
def test_killed_while_making_keys_the_next_start_heals(tmp_path: Path, step: int) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), str(step)], check=False)
    assert killed.returncode == -signal.SIGKILL
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.seed")}
    assert len(before) == step - 1

    found = loopback.provide(tmp_path)

    assert found.config.read_text().count("nkey: U") == 2
    assert {path: path.read_bytes() for path in before} == before
    assert {path.name for path in found.config.parent.iterdir()} == {"node.seed", "operator.seed", "nats-server.conf"}
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "access").rglob("*")}
    assert all(mode == (0o700 if path.is_dir() else 0o600) for path, mode in modes.items()), modes


def test_a_damaged_key_is_named_and_its_remedy_works(tmp_path: Path) -> None:
    found = loopback.provide(tmp_path)
    found.node.write_bytes(b"")

    with pytest.raises(CredentialsError) as refused:
        loopback.provide(tmp_path)
    assert str(found.node) in refused.value.message
    assert "delete the file" in (refused.value.remedy or "")
    found.node.unlink()
    assert loopback.provide(tmp_path).node.stat().st_size > 0


@pytest.mark.parametrize(
    ("environ", "used"),
    [
        ({}, True),
        ({"MEMBRIDGE_NATS_URL": "nats://127.0.0.1:14222"}, True),
        ({"MEMBRIDGE_NATS_URL": "nats://localhost:4222,nats://[::1]:4222"}, True),
        ({"MEMBRIDGE_NATS_URL": "nats://hub.example.org:4222"}, False),
        ({"MEMBRIDGE_NATS_URL": "nats://127.0.0.1:4222,nats://hub.example.org:4222"}, False),
        ({"MEMBRIDGE_NATS_URL": "tls://127.0.0.1:4222"}, False),
        ({"MEMBRIDGE_NATS_URL": "nats://me:pw@127.0.0.1:4222"}, False),
        ({"MEMBRIDGE_NATS_CREDENTIALS_FILE": "/etc/me.creds"}, False),
        ({"MEMBRIDGE_NATS_KEYS_DIR": "/etc/keys"}, False),
    ],
)
def test_the_key_is_used_for_a_server_on_loopback_alone(tmp_path: Path, environ: dict[str, str], used: bool) -> None:
    key = loopback.provide(tmp_path / ".local" / "state" / "membridge").node

    assert load(environ, tmp_path).nats.nkey_seed_file == (key if used else None)
    named = {**environ, "MEMBRIDGE_NATS_NKEY_SEED_FILE": "/etc/my.seed"}
    assert load(named, tmp_path).nats.nkey_seed_file == Path("/etc/my.seed")
