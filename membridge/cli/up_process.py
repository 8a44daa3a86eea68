"""The process of `membridge up`: `python -m membridge.cli.up_process [ADDRESS:PORT]`.

Loads no command line.
"""

import asyncio
import os
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import msgspec

from membridge.access import account_migration, join_config, loopback
from membridge.access.join_config import JoinConfig
from membridge.aio import lifecycle, threads
from membridge.aio.lifecycle import Part
from membridge.cli.overview import announce
from membridge.cli.up_port import port_of
from membridge.embedded.nats_server import NatsOptions, Supervisor
from membridge.errors import InvalidRequestError
from membridge.node import daemon, registry
from membridge.objectstore.encryption.keys import key_text, read_file
from membridge.settings import DEFAULT, Settings, StoreKind, load
from membridge.system.pidfile import only_one
from membridge.system.sd_notify import Notifier
from membridge.system.signals import signals_set
from membridge.wiring import process
from membridge.wiring.service import installed, supervised
from schemas.access import StoreConfig

#: Seconds that the node, and then the server, may take to stop.
DRAIN = 15.0


def main(listen: str | None = None) -> int:
    """Run server, services and node until SIGTERM or Ctrl-C; return the exit code."""
    return process.run(partial(_alone, listen))


async def _alone(listen: str | None, settings: Settings) -> None:
    with only_one(settings.node.state_dir, "up"):
        await (_serve(settings) if listen is None else _serve_others(settings, listen))


async def _serve(settings: Settings) -> None:
    port = port_of(settings)
    own = await threads.run(loopback.provide, settings.node.state_dir)
    reached = await threads.run(load, os.environ, Path.home())
    if reached.nats.nkey_seed_file != own.node:
        raise InvalidRequestError(
            f"`membridge up` starts a server with keys of its own, but the settings name others: {_others(reached)}",
            remedy="remove them there, or run `membridge node` to use a server of your own",
            field="nats",
        )
    projects = [project.id for project in await threads.run(registry.load, reached)]
    await threads.run(account_migration.out_of_accounts, settings.node.state_dir / "nats", projects)
    instead = "set MEMBRIDGE_NATS_URL=nats://127.0.0.1:{port} for `membridge up` and every other command"
    server = Supervisor(NatsOptions(settings.node.state_dir / "nats", port, config=own.config, instead=instead))
    await _run(server, reached, {})


async def _run(server: Supervisor, settings: Settings, between: Mapping[str, Part]) -> None:
    stopping, notifier = asyncio.Event(), Notifier.of(os.environ)

    # They stop in reverse. The node's worker hands back what it runs: services are there until it has.
    parts: dict[str, Part] = {"nats-server": server.run, "watchdog": notifier.alive, **between}
    services = [one for one in await threads.run(installed) if one.enabled(settings)]
    parts |= {service.name: supervised(service, settings) for service in services}
    # The node tells no service manager: that watches this whole process.
    parts["node"] = lambda ready: daemon.run(settings, {}, stopping=asyncio.Event(), on_ready=ready)
    parts["overview"] = partial(announce, settings, services)
    with signals_set(stopping):
        await lifecycle.run(
            parts, stopping=stopping, on_ready=notifier.ready, on_stopping=notifier.stopping, drain=DRAIN
        )


async def _serve_others(settings: Settings, listen: str) -> None:
    from membridge.access.enrolment_part import EnrolmentPart  # noqa: PLC0415 - cryptography is loaded only where others join
    from membridge.access.server_files import Listening, ServerFiles, given_in  # noqa: PLC0415 - as above

    listening = Listening.of(listen)
    server_files = await threads.run(
        ServerFiles, settings.node.state_dir / "access", listening, given_in(settings.nats)
    )
    listening = server_files.listening
    server = Supervisor(
        NatsOptions(
            settings.node.state_dir / "nats",
            listening.port,
            config=server_files.config,
            address=listening.address,
            instead=f"run `membridge up --listen {listening.address}:{{port}}`",
        )
    )
    enrolment = EnrolmentPart(
        server_files, store_config(settings), reload=lambda deadline: server.reload(deadline=deadline),
        replicas=settings.nats.replicas,
    )  # fmt: skip
    names = [project.name for project in await threads.run(registry.load, settings)]
    membership = await threads.run(enrolment.prepare, settings.node.id, names)
    await threads.run(account_migration.into_accounts, settings.node.state_dir / "nats", membership.projects)
    config = {
        "nats": {
            "urls": [listening.local_url],
            "ca_file": str(server_files.certificate.authority),
            "keys_dir": str(server_files.keys),
            "listen": listen,
        }
    }
    await threads.run(join_config.save, settings.node.config_dir, JoinConfig(config))
    reached = await threads.run(load, os.environ, Path.home())
    if reached.nats.urls != (listening.local_url,):
        unset = reached.unset("nats.urls")
        raise InvalidRequestError(
            "`membridge up --listen` starts a server here, but the setting nats.urls names another one",
            remedy=f"{unset}, or run `membridge node` to use that server",
            field="nats.urls",
        )
    await _run(server, reached, {"access": lambda ready: enrolment.run(membership, ready)})


def store_config(settings: Settings) -> StoreConfig:
    """Return the store's configuration for machines that join."""
    store = settings.store
    passphrase, keys = store.encryption_passphrase, store.encryption_key_file
    sealed = StoreConfig(
        kind=store.backend.value,
        sealing_keys=key_text(read_file(keys)) if keys else None,
        passphrase=passphrase.reveal() if passphrase else None,
    )
    if store.backend is StoreKind.JETSTREAM:
        return sealed
    return msgspec.structs.replace(
        sealed,
        endpoint=store.endpoint,
        access_key=store.access_key.reveal() if store.access_key else None,
        secret_key=store.secret_key.reveal() if store.secret_key else None,
        bucket=store.bucket,
        region=store.region,
        ca=store.ca_file.read_text("utf-8") if store.ca_file else None,
    )


def _others(settings: Settings) -> str:
    """Return which settings sign in to another server than that of `up`, and where each is set."""
    named = ("nats.credentials_file", "nats.nkey_seed_file", "nats.keys_dir")
    found = [f"{key} ({origin})" for key in named if (origin := settings.origins[key]) != DEFAULT]
    return ", ".join(found) or f"the user in nats.urls ({settings.origins['nats.urls']})"


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
