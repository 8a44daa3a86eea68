"""`membridge up`: everything on one machine in one command, the bundled nats-server included."""

import asyncio
import os
from urllib.parse import urlsplit

import click
import uvloop

from membridge import lifecycle
from membridge.cli.command import Invocation, command
from membridge.embedded.nats_server import NatsOptions, Supervisor
from membridge.errors import InvalidRequestError
from membridge.lifecycle import Ready
from membridge.node import daemon
from membridge.node.main import start_logging
from membridge.node.running import only_one
from membridge.settings import Settings, StoreKind
from schemas.subjects import Impact

#: Seconds that the node, and then the server, may take to stop.
DRAIN = 15.0
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})


@command("up", impact=Impact.WRITE)
def up_command(invocation: Invocation) -> None:
    """Run the bundled nats-server and this machine's node; Ctrl-C stops both."""
    settings = invocation.settings
    start_logging(settings)
    with only_one(settings.node.state_dir, "up"), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    server = Supervisor(NatsOptions(settings.node.state_dir / "nats", port=_port(settings)))
    stopping = asyncio.Event()

    async def node(ready: Ready) -> None:
        def serving() -> None:
            click.echo(_overview(settings), err=True)
            ready()

        await daemon.run(settings, os.environ, stopping=asyncio.Event(), on_ready=serving)

    with daemon.signals_set(stopping):
        parts = {"nats-server": server.run, "node": node}
        await lifecycle.run(parts, stopping=stopping, on_ready=lambda: None, drain=DRAIN)


def _port(settings: Settings) -> int:
    address = urlsplit(settings.nats.urls[0])
    if len(settings.nats.urls) != 1 or address.hostname not in LOOPBACK:
        raise InvalidRequestError(
            f"MEMBRIDGE_NATS_URL names a server elsewhere ({address.hostname}), and `up` starts one here",
            remedy="run `membridge node` to use that server, or unset MEMBRIDGE_NATS_URL",
        )
    return address.port or 4222


def _overview(settings: Settings) -> str:
    store = settings.store
    kept = "JetStream Object Store" if store.backend is StoreKind.JETSTREAM else f"{store.endpoint} {store.bucket}"
    rows = [
        ("node", str(settings.node.id)),
        ("nats", settings.nats.urls[0]),
        ("snapshots", kept),
        ("state", str(settings.node.state_dir)),
        *((f"project {project.name}", str(project.database)) for project in settings.projects),
    ]
    width = max(len(name) for name, _ in rows)
    lines = [f"  {name:<{width}}  {value}" for name, value in rows]
    return "\n".join(["Membridge is up. Ctrl-C stops it; `membridge status` in another terminal shows it.", *lines])
