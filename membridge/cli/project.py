"""`membridge project`: which memories this node serves."""

import os
from pathlib import Path

import click

from membridge.cli.command import DefaultGroup, Invocation, command
from membridge.errors import BusUnavailableError, NoResponderError
from schemas import subjects
from schemas.leadership import Role
from schemas.node import AddProjectRequest, Empty, ProjectPresence, ProjectsReply
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


project = DefaultGroup(
    "project", default="list", commands=[list_projects, add], summary="List or add the projects of this node."
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
