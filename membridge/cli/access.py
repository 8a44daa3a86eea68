"""`membridge invite`, `join`, and `nodes admit`, `revoke`, `members`, `log`: which machines may connect."""

import asyncio
import os
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from membridge.cli import tables, units
from membridge.cli.command import Invocation, command, quiet
from membridge.errors import InvalidRequestError, NoResponderError, NotOnWindowsError
from membridge.settings import DEFAULT, ENROLLED, Settings
from membridge.system.windows import on_windows
from schemas import subjects
from schemas.access import (
    AccessLogReply,
    InvitationRequest,
    InvitationsReply,
    InviteReply,
    InviteRequest,
    MemberRole,
    MembersReply,
    RevokeRequest,
)
from schemas.identity import InvalidTokenError, NodeId, canonical_id, node_id
from schemas.node import Empty
from schemas.subjects import Impact, Operation
from schemas.wire import Wire, WireError, convert

if TYPE_CHECKING:
    from membridge.access.invitation import Line
    from membridge.access.server_files import ServerFiles

Q = TypeVar("Q", bound=Wire)
R = TypeVar("R", bound=Wire)

MEMBER_COLUMNS = ("node", "role", "state", "since", "projects>")
INVITATION_COLUMNS = ("id", "state", "for", "used by", "expires", "*note")
LOG_COLUMNS = ("when", "what", "node", "*about")
_EXPIRES = re.compile(r"([0-9]{1,6})([smhd]?)")
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


class JoinedReply(Wire, frozen=True, kw_only=True):
    """A client that joined: its name, the projects, and the file that was written."""

    node: str
    projects: list[str]
    file: str


class Expires(click.ParamType[int]):
    """A time such as 90s, 10m or 2h, in seconds."""

    name = "TIME"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the seconds; fail unless it is a time between a minute and a week."""
        found = _EXPIRES.fullmatch(str(value))
        seconds = int(found[1]) * _UNITS[found[2]] if found else 0
        if not 60 <= seconds <= 604_800:
            self.fail(f"{value!r} is not a time between 1m and 7d: write it as 10m or 2h.", param, ctx)
        return seconds


@command("invite", impact=Impact.WRITE)
@click.option("--node", metavar="NAME", help="Only a machine of this name may use it.")
@click.option("--expires", type=Expires(), default="10m", show_default=True, help="How long it is valid.")
@click.option("--note", default="", metavar="TEXT", help="What it is for, shown in the list of invitations.")
def invite(invocation: Invocation, node: str | None, expires: int, note: str) -> None:
    """Print a line that lets one more machine join.

    Run it where `membridge up --listen` runs. On the new machine run `membridge join LINE`. The machine gets all
    projects, or with --project that one alone.
    """
    projects = [invocation.project_name] if invocation.project_name else []
    request = InviteRequest(node=NodeId(node) if node else None, projects=projects, expires_seconds=expires, note=note)
    invocation.show(_ask_desk(invocation, subjects.INVITE, request), _print_invitation)


@command("admit", impact=Impact.WRITE)
@click.argument("name", metavar="NAME")
@click.option(
    "--role",
    type=click.Choice([MemberRole.READER.value, MemberRole.GATEWAY.value]),
    default=MemberRole.READER.value,
    show_default=True,
    help="reader only reads the memory, gateway also acts for people.",
)
@click.option("--to", "folder", type=click.Path(path_type=Path), help="Folder for its keys.  [default: ./NAME]")
def admit(invocation: Invocation, name: str, role: str, folder: Path | None) -> None:
    """Make keys that let the front end NAME in.

    Run it where `membridge up --listen` runs, then copy the folder to the front end. It sees all projects, or with
    --project that one alone. `membridge nodes revoke NAME` shuts it out again.
    """
    from membridge.access.front_end import make_keys  # noqa: PLC0415 - loaded only on the server's machine

    try:
        member = node_id(name)
    except InvalidTokenError as error:
        raise InvalidRequestError(str(error), field="name") from error
    there = _ask_desk(invocation, subjects.MEMBERS, Empty())
    names = [invocation.project_name] if invocation.project_name else there.projects
    projects = [canonical_id(named) for named in names]
    server_files, target = server_files_of(invocation), folder or Path(name)
    request = make_keys(server_files, member, MemberRole(role), projects, target)
    reply = _ask_desk(invocation, subjects.ADMIT, request)

    def print_admitted(reply: MembersReply) -> None:
        del reply
        url = server_files.listening.urls[0]
        click.echo(f"{name} may connect as {role}; its keys are in {target}. Try them with the stock CLI:", err=True)
        click.echo(
            f"nats --server {url} --nkey {target}/{projects[0]}.seed --tlsca {target}/authority.pem "
            f"--inbox-prefix _INBOX.{name} request {subjects.STATUS.to_primary().at(project=projects[0])} ''"
        )

    invocation.show(reply, print_admitted)


@command("revoke", impact=Impact.WRITE)
@click.argument("node", metavar="NODE")
def revoke(invocation: Invocation, node: str) -> None:
    """Cut NODE off at once.

    It stays out until it joins with a new invitation.
    """
    reply = _ask_desk(invocation, subjects.REVOKE, RevokeRequest(node=NodeId(node)))
    invocation.show(reply, _print_members)


@command("members", impact=Impact.READ)
def members(invocation: Invocation) -> None:
    """List the machines that may connect, present or not."""
    invocation.show(_ask_desk(invocation, subjects.MEMBERS, Empty()), _print_members)


@command("invitations", impact=Impact.WRITE)
@click.option("--revoke", "revoked", metavar="ID", help="Revoke this one: nobody can join with it any more.")
def invitations(invocation: Invocation, revoked: str | None) -> None:
    """List the invitations, newest first, or revoke one."""
    if revoked is not None:
        try:
            request = convert({"id": revoked}, InvitationRequest)
        except WireError as error:
            raise InvalidRequestError(
                f"{revoked} is not the id of an invitation: it has 16 signs, 0-9 and a-f",
                remedy="list them: `membridge nodes invitations`",
                field="id",
            ) from error
        ended = _ask_desk(invocation, subjects.REVOKE_INVITATION, request)
        invocation.show(ended, lambda one: tables.line(f"invitation {one.id} is {one.state}"))
        return
    invocation.show(_ask_desk(invocation, subjects.INVITATIONS, Empty()), _print_invitations)


@command("log", impact=Impact.READ)
def access_log(invocation: Invocation) -> None:
    """List invitations, joins, refusals and revocations."""
    invocation.show(_ask_desk(invocation, subjects.ACCESS_LOG, Empty()), _print_log)


@command("join", impact=Impact.WRITE)
@click.argument("line", metavar="LINE")
@click.option("--node", metavar="NAME", help="Name of this machine.  [default: its host name]")
@click.option("--database", type=click.Path(path_type=Path), help="claude-mem's database on this machine.")
@click.option("--replace", is_flag=True, help="Leave the memory that this machine joined earlier.")
@click.option("--once", is_flag=True, help="Synchronise once and exit, instead of becoming the daemon.")
def join(
    invocation: Invocation, line: str, node: str | None, database: Path | None, *, replace: bool, once: bool
) -> None:
    """Join the memory that the invitation LINE is for.

    Makes keys for this machine, writes its settings, synchronises, and becomes this machine's daemon. On Windows it
    stops after the settings: the machine is a client.
    """
    from membridge.access import invitation  # noqa: PLC0415 - loaded only by a join
    from membridge.access.join import Place, join  # noqa: PLC0415 - as above

    settings = invocation.settings
    quiet(settings)
    said = invitation.parse(line)
    file = settings.node.config_dir / ENROLLED
    if file.exists() and not replace:
        raise InvalidRequestError(
            f"this machine has already joined a memory: see {file}",
            remedy="to leave that one run `membridge join --replace LINE`",
        )
    name = NodeId(node) if node else said.node or settings.node.id
    path = Path(os.path.abspath(database.expanduser())) if database else settings.project.database  # noqa: PTH100 - a link stays a link
    _check_own_settings(settings, said, name, path)
    joined = asyncio.run(join(said, Place(settings.node.config_dir, name, path)))
    if not invocation.as_json:
        click.echo(f"Joined as node {joined.node} at {joined.url}: {', '.join(joined.projects)}.")
        click.echo(f"Written: {joined.file}")
    if on_windows():
        reply = JoinedReply(node=joined.node, projects=list(joined.projects), file=str(joined.file))
        invocation.show(
            reply, lambda _: click.echo("This machine is a client: it asks the others and keeps no memory.")
        )
        return
    for project in joined.projects:
        for verb in ("pull", "push"):
            _run([verb, "--project", project, *(["--json"] if invocation.as_json else [])])
    if not once:
        os.execv(sys.executable, [sys.executable, "-m", "membridge.cli.main", "node"])  # noqa: S606 - ourselves


def _check_own_settings(settings: Settings, line: "Line", node: NodeId, database: Path) -> None:
    """Raise InvalidRequestError for a setting that would go before what a join writes, and says something else.

    Before anything is enrolled: afterwards the daemon would be another node than the one that the server let in.
    """
    written = settings.node.config_dir / ENROLLED
    wanted: dict[str, object] = {
        "node.id": node, "project.name": line.projects[0], "project.database": database,
        "nats.keys_dir": None, "nats.ca_file": None,
    }  # fmt: skip
    for key, value in wanted.items():
        group, _, name = key.partition(".")
        origin, own = settings.origins[key], getattr(getattr(settings, group), name)
        if origin in {DEFAULT, str(written)} or own == value:
            continue
        becomes = f"would make it {value}" if value is not None else "sets it itself"
        also = f", or join with `--node {own}`" if key == "node.id" and line.node is None else ""
        unset = settings.unset(key)
        raise InvalidRequestError(
            f"{key} is {own}, set by {origin}, and this join {becomes}", remedy=f"{unset}{also}", field=key
        )
    origin = settings.origins["nats.urls"]
    if origin not in {DEFAULT, str(written)} and not set(settings.nats.urls) <= set(line.urls):
        unset = settings.unset("nats.urls")
        raise InvalidRequestError(
            f"nats.urls, set by {origin}, does not name {line.urls[0]}, the server of the invitation",
            remedy=unset,
            field="nats.urls",
        )


def _run(arguments: list[str]) -> None:
    from membridge.cli.main import INTERRUPTED, main  # noqa: PLC0415 - it loads this module

    # A pull from an empty memory reports that itself; the join did not fail.
    if main(arguments) == INTERRUPTED:
        raise KeyboardInterrupt


def _print_invitation(reply: InviteReply) -> None:
    who = f"node {reply.node}" if reply.node else "one machine"
    projects = ", ".join(reply.projects)
    click.echo(f"Lets {who} in once, until {units.when(reply.expires_at)} ({projects}). On that machine run:", err=True)
    click.echo(f"membridge join {reply.line}")


def _print_members(reply: MembersReply) -> None:
    rows = [
        (
            member.node,
            member.role,
            member.state,
            tables.when(member.revoked_at or member.enrolled_at),
            str(len(member.keys)),
        )
        for member in reply.members
    ]
    tables.table(MEMBER_COLUMNS, rows, empty="no machine has joined yet")


def _print_invitations(reply: InvitationsReply) -> None:
    rows = [
        (one.id, one.state, one.node or "any", one.used_by or "", tables.when(one.expires_at), one.note)
        for one in reply.invitations
    ]
    tables.table(INVITATION_COLUMNS, rows, empty="no invitation: make one with `membridge invite`")


def _print_log(reply: AccessLogReply) -> None:
    rows = [
        (tables.when(item.at), item.action, item.node, item.reason or ", ".join(item.projects))
        for item in reply.records
    ]
    tables.table(LOG_COLUMNS, rows, empty="the log is empty")


def _ask_desk(invocation: Invocation, operation: Operation[Q, R], request: Q) -> R:
    from membridge.aio.deadline import Deadline  # noqa: PLC0415 - as above
    from membridge.bus.caller import own_name  # noqa: PLC0415 - loaded only on the server's machine
    from membridge.bus.connection import connect  # noqa: PLC0415 - as above
    from membridge.bus.rpc import RpcClient  # noqa: PLC0415 - as above

    server_files = server_files_of(invocation)

    async def ask() -> R:
        options = server_files.options(
            server_files.seed("caller"), "membridge command", inbox="caller", jetstream=False
        )
        # The access log names the person, beside the key that the server vouches for.
        options = replace(options, caller=own_name(invocation.settings.node.id))
        deadline = Deadline.after(operation.deadline)
        async with connect(options, deadline=deadline.sooner(5.0)) as bus:
            try:
                return await RpcClient(bus).request(operation, request, deadline=deadline)
            except NoResponderError as error:
                raise NoResponderError(
                    "the enrolment service does not answer: `membridge up --listen` is not running here",
                    remedy="start `membridge up` with the same --listen address as before",
                ) from error

    return asyncio.run(ask())


def server_files_of(invocation: Invocation) -> "ServerFiles":
    """Return the access folder of this machine. Raises InvalidRequestError where no server for others is set up."""
    if on_windows():
        raise NotOnWindowsError(
            "this command works on the server's machine, and Membridge runs no server on Windows",
            remedy="run it on the machine of `membridge up --listen`",
        )
    from membridge.access.server_files import Listening, ServerFiles, given_in  # noqa: PLC0415 - loaded only on the server's machine

    settings = invocation.settings
    quiet(settings)
    folder = settings.node.state_dir / "access"
    if settings.nats.listen is None or not (folder / "nats-server.conf").is_file():
        raise InvalidRequestError(
            "this machine does not run a server for other machines",
            remedy="run `membridge up --listen 0.0.0.0:4222` here, or run this command on the machine where it runs",
        )
    return ServerFiles(folder, Listening.of(str(settings.nats.listen)), given_in(settings.nats))
