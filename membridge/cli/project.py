"""`membridge project`: which memories this node serves."""

import os
import shlex
from pathlib import Path

import click

from membridge.cli.command import DefaultGroup, Invocation, command
from membridge.errors import BusUnavailableError, NoResponderError
from schemas import subjects
from schemas.leadership import Role
from schemas.node import (
    AddProjectRequest,
    Empty,
    ProjectPresence,
    ProjectsReply,
    RemoveProjectReply,
    RemoveProjectRequest,
)
from schemas.subjects import Impact

COLUMNS = ("project", "id", "role", "seq>", "*database")


@command("list", impact=Impact.READ)
def list_projects(invocation: Invocation) -> None:
    """List the projects of this node."""
    from membridge.cli.asking import ask_daemon  # noqa: PLC0415 - the bus is loaded only where it is used

    try:
        reply = ask_daemon(invocation, subjects.PROJECTS, Empty(), node=invocation.settings.node.id)
    except (NoResponderError, BusUnavailableError):
        reply = _registered(invocation)
    invocation.show(reply, _print)


@command("add", impact=Impact.WRITE)
@click.argument("name", metavar="NAME")
@click.option("--database", metavar="PATH", type=click.Path(), help="Its claude-mem database on this machine.")
def add(invocation: Invocation, name: str, database: str | None) -> None:
    """Serve the project NAME on this node, now and after each start."""
    from membridge.cli.asking import ask_daemon  # noqa: PLC0415 - the bus is loaded only where it is used
    from membridge.node import registry  # noqa: PLC0415 - as above

    path = os.path.abspath(Path(database).expanduser()) if database else None  # noqa: PTH100 - a link stays a link
    request = AddProjectRequest(name=name, database=path)
    try:
        reply = ask_daemon(invocation, subjects.ADD_PROJECT, request, node=invocation.settings.node.id)
    except (NoResponderError, BusUnavailableError):
        registry.add(invocation.settings, name, path)
        reply = _registered(invocation)
    invocation.show(reply, _print)


@command("remove", impact=Impact.WRITE)
@click.argument("name", metavar="NAME")
@click.option("--yes", is_flag=True, help="Do not ask.")
def remove(invocation: Invocation, name: str, yes: bool) -> None:  # noqa: FBT001 - click's flag
    """Serve the project NAME on this node no longer. Its database, its backups and all snapshots stay."""
    from membridge.cli.asking import ask_daemon  # noqa: PLC0415 - the bus is loaded only where it is used
    from membridge.node import registry  # noqa: PLC0415 - as above

    config = registry.removable(invocation.settings, name)
    if not yes:
        question = f"Stop serving {config.name} on this node? Its database {config.database} stays."
        invocation.confirm(question, otherwise=f"project {config.name} was not removed")
    request = RemoveProjectRequest(name=name)
    try:
        reply = ask_daemon(invocation, subjects.REMOVE_PROJECT, request, node=invocation.settings.node.id)
    except (NoResponderError, BusUnavailableError):
        registry.forget(invocation.settings, config.id)
        left = _registered(invocation).projects
        reply = RemoveProjectReply(project=config.id, name=config.name, database=str(config.database), projects=left)
    invocation.show(reply, _print_removed)


project = DefaultGroup(
    "project",
    default="list",
    commands=[list_projects, add, remove],
    summary="List, add or remove the projects of this node.",
)


def _registered(invocation: Invocation) -> ProjectsReply:
    """Return the projects that the daemon will serve when it starts."""
    from membridge.node import registry  # noqa: PLC0415 - loaded only where no daemon answers

    return ProjectsReply(
        projects=[
            ProjectPresence(project=item.id, name=item.name, role=Role.NONE, database=str(item.database))
            for item in registry.load(invocation.settings)
        ]
    )


def _print(reply: ProjectsReply) -> None:
    from membridge.cli import tables  # noqa: PLC0415 - rich is loaded only where people read

    def row(item: ProjectPresence) -> tuple[str, ...]:
        return (item.name, item.project, item.role, str(item.mirror_seq), tables.short(item.database))

    tables.table(COLUMNS, map(row, reply.projects), empty="no project")


def _print_removed(reply: RemoveProjectReply) -> None:
    click.echo(f"{reply.name} is not served any more; its database {reply.database} and its snapshots are kept")
    if reply.led:
        click.echo("this node was its primary; if no other takes over, choose one: `membridge leader select NODE`")
    click.echo(
        f"serve it again: `membridge project add {shlex.quote(reply.name)} --database {shlex.quote(reply.database)}`"
    )
