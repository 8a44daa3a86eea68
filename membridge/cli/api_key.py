"""`membridge api-key`: the keys of services that answer HTTP. A key is printed once, and stored as its sha256."""

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, TypeVar

import click

from membridge.cli import tables
from membridge.cli.command import DefaultGroup, Invocation, command, quiet
from membridge.errors import InvalidRequestError
from membridge.settings import RUNTIME
from schemas.subjects import Impact
from schemas.web import ApiKey, IssuedKey, IssueKeyRequest, KeyId, KeyInfo, KeysReply, Role
from schemas.wire import Wire, WireError, convert

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping

    from membridge.aio.deadline import Deadline
    from membridge.bus.kv import Kv

W = TypeVar("W", bound=Wire)

#: Seconds to connect and to make a key.
ANSWER = 15.0
KEY_COLUMNS = ("id", "*name", "role", "scopes", "state", "used", "made", "by")


class _Named(Wire, frozen=True, kw_only=True):
    """The id of a key."""

    id: KeyId


@command("list", impact=Impact.READ)
def list_keys(invocation: Invocation) -> None:
    """List the keys, newest first."""
    from membridge.bus.kv import open_bucket  # noqa: PLC0415 - the bus is loaded only where it is used
    from membridge.wiring.api_keys import all_keys  # noqa: PLC0415 - as above
    from schemas.buckets import API_KEY_USES  # noqa: PLC0415 - as above

    async def listed(kv: "Kv[ApiKey]", deadline: "Deadline") -> KeysReply:
        replicas = invocation.settings.nats.replicas
        uses = await open_bucket(kv.bus, API_KEY_USES, replicas=replicas, deadline=deadline)
        return KeysReply(keys=await all_keys(kv, uses, deadline=deadline))

    invocation.show(_with_keys(invocation, listed), _print_keys)


@command("new", impact=Impact.WRITE)
@click.argument("name", metavar="NAME")
@click.option(
    "--role",
    type=click.Choice([role.value for role in Role]),
    default=Role.ADMIN.value,
    show_default=True,
    help="What it may do: each role may do what those before it may.",
)
@click.option(
    "--scope", "scopes", multiple=True, metavar="SCOPE", help="tasks, memory, agent, keys or access.  [default: all]"
)
@click.option("--days", type=click.IntRange(1, 3650), metavar="N", help="How long it is valid.")
def new(invocation: Invocation, name: str, role: str, scopes: tuple[str, ...], days: int | None) -> None:
    """Make a key and print it, this once.

    Send it as `Authorization: Bearer KEY`, or log in with it.
    """
    from membridge.bus.caller import own_name  # noqa: PLC0415 - as above
    from membridge.wiring.api_keys import issue  # noqa: PLC0415 - as above

    fields = {"name": name, "role": role, "scopes": list(scopes) or ["*"], "days": days}
    wanted = _checked(fields, IssueKeyRequest)

    async def made(kv: "Kv[ApiKey]", deadline: "Deadline") -> IssuedKey:
        return await issue(kv, wanted, by=own_name(invocation.settings.node.id), deadline=deadline)

    invocation.show(_with_keys(invocation, made), _print_issued)


@command("revoke", impact=Impact.WRITE)
@click.argument("key_id", metavar="ID")
def revoke_key(invocation: Invocation, key_id: str) -> None:
    """Revoke a key: it is refused within a second.

    Its sessions and streams end too.
    """
    from membridge.bus.caller import own_name  # noqa: PLC0415 - as above
    from membridge.wiring.api_keys import revoke  # noqa: PLC0415 - as above

    named = _checked({"id": key_id}, _Named).id

    async def revoked(kv: "Kv[ApiKey]", deadline: "Deadline") -> KeyInfo:
        return await revoke(kv, named, by=own_name(invocation.settings.node.id), deadline=deadline)

    invocation.show(_with_keys(invocation, revoked), lambda key: tables.line(f"key {key.id} ({key.name}) is revoked"))


api_key = DefaultGroup(
    "api-key",
    default="list",
    commands=[list_keys, new, revoke_key],
    summary="Make, list and revoke the keys of front ends that use HTTP.",
)


def _checked(fields: "Mapping[str, object]", kind: type[W]) -> W:
    try:
        return convert(fields, kind)
    except WireError as error:
        raise InvalidRequestError(str(error), field=error.field) from error


def _with_keys(invocation: Invocation, act: "Callable[[Kv[ApiKey], Deadline], Awaitable[W]]") -> W:
    from membridge.aio.deadline import Deadline  # noqa: PLC0415 - as above

    async def acted() -> W:
        deadline = Deadline.after(ANSWER)
        async with _keys(invocation, deadline) as kv:
            return await act(kv, deadline)

    return asyncio.run(acted())


@asynccontextmanager
async def _keys(invocation: Invocation, deadline: "Deadline") -> "AsyncGenerator[Kv[ApiKey]]":
    from membridge.bus.connection import connect  # noqa: PLC0415 - as above
    from membridge.bus.kv import open_bucket  # noqa: PLC0415 - as above
    from membridge.wiring.bus import runtime_options  # noqa: PLC0415 - as above
    from schemas.buckets import API_KEYS  # noqa: PLC0415 - as above

    settings = invocation.settings
    quiet(settings)
    options = runtime_options(settings, "membridge command")
    if settings.nats.listen is not None:
        # Members may not read keys: this is the operator of the server's machine.
        from membridge.cli.access import server_files_of  # noqa: PLC0415 - cryptography, where the server for others is

        files = server_files_of(invocation)
        options = files.options(files.seed(f"operator-{RUNTIME}"), "membridge command", inbox="")
    async with connect(options, deadline=deadline) as bus:
        yield await open_bucket(bus, API_KEYS, replicas=settings.nats.replicas, deadline=deadline)


def _print_keys(reply: KeysReply) -> None:
    rows = [
        (
            one.id,
            one.name,
            one.role.value,
            ", ".join(one.scopes),
            _state(one),
            tables.when(one.last_used_at) if one.last_used_at else "never",
            tables.when(one.created_at),
            one.created_by,
        )
        for one in reply.keys
    ]
    tables.table(KEY_COLUMNS, rows, empty="no key: make one with `membridge api-key new NAME`")


def _state(key: KeyInfo) -> str:
    if key.revoked_at is not None:
        return "revoked"
    return "valid" if key.expires_at is None else f"until {tables.when(key.expires_at)}"


def _print_issued(issued: IssuedKey) -> None:
    tables.line(issued.secret)
    click.echo(
        f"Shown this once. Key {issued.key.id} is a {issued.key.role} of {', '.join(issued.key.scopes)}.", err=True
    )
