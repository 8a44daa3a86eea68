"""`membridge nats-context`: a context of the stock `nats` CLI, so that it signs in as the operator of this machine."""

import json
import os
from pathlib import Path

import click

from membridge.bus.options import BusOptions
from membridge.cli.command import Invocation, command
from membridge.errors import InvalidRequestError
from membridge.settings import LOOPBACK, RUNTIME, Settings
from membridge.system.windows import on_windows
from schemas.subjects import STATUS, Impact
from schemas.wire import Wire

#: How the description of each context of ours begins; any other context was not written by Membridge.
OURS = "Membridge"


class NatsContextReply(Wire, frozen=True, kw_only=True):
    """The contexts that were written: their names, their files, and a request to try."""

    contexts: dict[str, str]
    example: str


@command("nats-context", impact=Impact.WRITE)
@click.option("--name", default="membridge", show_default=True, help="Name of the context.")
def nats_context(invocation: Invocation, name: str) -> None:
    """Write a context for the stock `nats` command line.

    Then, for instance: `nats --context membridge micro ls`. The context signs in with the operator's key where
    `membridge up` runs, elsewhere with this machine's key. A server with an account for each project gets two: one for
    the project, and NAME-tasks for LLM tasks.
    """
    if not name.replace("-", "").replace("_", "").isalnum() or not name.isascii():
        raise InvalidRequestError(f"{name!r} is not a valid context name: use A-Z a-z 0-9 _ -", field="name")
    from membridge.cli.asking import project_id  # noqa: PLC0415 - the bus is loaded only where it is used

    project = project_id(invocation)
    folder = _folder()
    written: dict[str, str] = {}
    for suffix, about, options in _accounts(invocation):
        file = folder / f"{name}{suffix}.json"
        _save(file, about, options)
        written[name + suffix] = str(file)
    example = f"nats --context {name} request {STATUS.to_primary().at(project=project)} ''"
    invocation.show(NatsContextReply(contexts=written, example=example), _print)


def _accounts(invocation: Invocation) -> list[tuple[str, str, BusOptions]]:
    """Return what to write for each account: the end of its name, what it is for, and how to connect."""
    from membridge.cli.asking import project_id, served_project  # noqa: PLC0415 - the bus is loaded only where it is used
    from membridge.wiring.bus import bus_options, runtime_options  # noqa: PLC0415 - as above

    settings, named = invocation.settings, invocation.project_name or invocation.settings.project.name
    nats = settings.nats
    if nats.listen is not None:
        from membridge.cli.access import server_files_of  # noqa: PLC0415 - cryptography, where the server for others is

        server_files, project = server_files_of(invocation), project_id(invocation)
        keys = (
            ("", named, server_files.operator_of(project)),
            ("-tasks", "LLM tasks", server_files.seed(f"operator-{RUNTIME}")),
        )
        return [
            (end, f"operator of {about}", server_files.options(seed, "nats", inbox="")) for end, about, seed in keys
        ]
    operator = _operator_of_up(settings)
    if operator is not None:
        return [("", "operator", bus_options(settings, "nats", operator))]
    known = served_project(invocation)
    options = bus_options(settings, "nats", known.nkey_seed_file if known else None)
    if nats.keys_dir is not None:
        about = f"node {settings.node.id}"
        return [
            ("", f"{about}, {named}", options),
            ("-tasks", f"{about}, LLM tasks", runtime_options(settings, "nats")),
        ]
    if options.nkey_seed is None and options.credentials is None and _is_bare(options.urls):
        raise _keyless(settings, options.urls)
    return [("", "node", options)]


def _operator_of_up(settings: Settings) -> Path | None:
    """Return the operator's key for the server of this machine's `membridge up`; None for another server."""
    if on_windows():
        return None
    from membridge.access import loopback  # noqa: PLC0415 - loaded only where keys are looked for

    own = loopback.place(settings.node.state_dir)
    return own.operator if settings.nats.nkey_seed_file == own.node else None


def _keyless(settings: Settings, urls: tuple[str, ...]) -> InvalidRequestError:
    """Return why there is nothing to write: the server has no users, or `up` runs and its keys are elsewhere."""
    server = ",".join(urls)
    if _up_runs(settings.node.state_dir):
        return InvalidRequestError(
            f"this machine has no key for {server}, which is not the server of the running `membridge up`",
            remedy="run `membridge config show`, and remove nats.urls and keys that are not those of `membridge up`",
        )
    return InvalidRequestError(
        f"the server at {server} has no users, so there is nothing to sign in with",
        remedy=f"run `nats --server {server}` without a context, or use the server of `membridge up`, which has keys",
    )


def _up_runs(state: Path) -> bool:
    if on_windows():
        return False
    from membridge.system import pidfile  # noqa: PLC0415 - here only, and not on Windows

    return pidfile.holder(state, "up") is not None


def _is_bare(urls: tuple[str, ...]) -> bool:
    from urllib.parse import urlsplit  # noqa: PLC0415 - here only

    return all(urlsplit(url).hostname in LOOPBACK and not urlsplit(url).username for url in urls)


def _folder() -> Path:
    """Return where the `nats` CLI looks for its contexts."""
    configured = os.environ.get("XDG_CONFIG_HOME", "")
    return (Path(configured) if configured.startswith("/") else Path.home() / ".config") / "nats" / "context"


def _save(file: Path, about: str, options: BusOptions) -> None:
    from membridge.system import files  # noqa: PLC0415 - only where something is written

    if file.exists() and not _is_ours(file):
        raise InvalidRequestError(
            f"{file} exists and was not written by Membridge",
            remedy="choose another name with `--name`, or delete it",
            field="name",
        )
    said = {
        "description": f"{OURS}: {about}",
        "url": ",".join(options.urls),
        "nkey": str(options.nkey_seed or ""),
        "creds": str(options.credentials or ""),
        "ca": str(options.ca_file or ""),
        "jetstream_domain": options.domain or "",
        "inbox_prefix": options.inbox_prefix,
    }
    files.save(file, json.dumps(said, indent=2).encode() + b"\n")


def _is_ours(file: Path) -> bool:
    try:
        document = json.loads(file.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(document, dict) and str(document.get("description", "")).startswith(OURS)  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]


def _print(reply: NatsContextReply) -> None:
    for name, file in reply.contexts.items():
        click.echo(f"Context {name}: {file}", err=True)
    click.echo(reply.example)
