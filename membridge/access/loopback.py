"""The keys of a server for this machine alone: `membridge up` without `--listen`.

All data is in the server's global account, where it was before there were keys. Two users may do everything there: the
node with its commands, and the operator's stock `nats` CLI. Another user of the machine can reach the port but not read
the keys, so the server refuses it.
"""

from dataclasses import dataclass
from pathlib import Path

from membridge.access.nkeys import provide_key
from membridge.access.server_config import render_users
from membridge.embedded.nats_server import bundled_config
from membridge.settings import loopback_key
from membridge.system import files


@dataclass(frozen=True, slots=True)
class Loopback:
    """The files: the server's configuration and the seeds of its two users."""

    config: Path
    node: Path
    operator: Path


def place(state: Path) -> Loopback:
    """Return the paths of the files for the state folder `state`."""
    node = loopback_key(state)
    return Loopback(node.with_name("nats-server.conf"), node, node.with_name("operator.seed"))


def provide(state: Path) -> Loopback:
    """Make missing keys and write the server's configuration; safe to repeat after any interruption.

    Blocking. Raises CredentialsError for a damaged key, DiskFullError and FileAccessError.
    """
    found = place(state)
    folder = found.config.parent
    with files.translated(folder):
        for one in (folder.parent, folder):
            one.mkdir(mode=0o700, parents=True, exist_ok=True)
            one.chmod(0o700)
    users = render_users([_public(found.node), _public(found.operator)])
    files.save(found.config, f"{bundled_config().read_text('utf-8')}\n{users}".encode())
    return found


def _public(seed: Path) -> str:
    public = provide_key(seed)
    # A file restored from a backup may be readable for others.
    with files.translated(seed):
        seed.chmod(0o600)
    return public
