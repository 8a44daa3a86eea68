"""`membridge project`: which memories this node serves."""

import copy
import os
import shlex
from pathlib import Path

import click

from membridge.cli import requests, tables, units
from membridge.cli.command import DefaultGroup, Invocation, command
from membridge.errors import BusUnavailableError, CredentialsError, NoResponderError
from membridge.settings import ProjectConfig
from schemas import subjects
from schemas.identity import ProjectId
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
#: Why nothing is known of a project on the list: no daemon answers, or the daemon does not name it.
UNASKED = "no daemon answers: it serves the project after its next start"
UNLISTED = "the daemon does not serve it yet: it is opening it, or serves it after its next start"


@command("list", impact=Impact.READ)
def list_projects(invocation: Invocation) -> None:
    """List the projects of this node."""
    from membridge.node import registry  # noqa: PLC0415 - loaded only where it is used

    known, node = registry.load(invocation.settings), invocation.settings.node.id
    # Where the server has an account for each project, each answers for its own.
    keys: dict[Path | None, ProjectConfig] = {}
    for item in known:
        keys.setdefault(item.nkey_seed_file, item)
    served: dict[ProjectId, ProjectPresence] = {}
    silent: dict[Path | None, str] = {}
    for key, first in keys.items():
        try:
            reply = requests.ask_daemon(_as_project(invocation, first.id), subjects.PROJECTS, Empty(), node=node)
        except (NoResponderError, BusUnavailableError):
            silent[key] = UNASKED
        except CredentialsError as error:
            if len(keys) == 1:
                raise
            silent[key] = error.message
        else:
            served |= {item.project: item for item in reply.projects}
    here = {item.id: _unseen(item, silent.get(item.nkey_seed_file, UNLISTED)) for item in known}
    invocation.show(ProjectsReply(projects=list((here | served).values())), _print)


@command("add", impact=Impact.WRITE)
@click.argument("name", metavar="NAME")
@click.option("--database", metavar="PATH", type=click.Path(), help="Its claude-mem database on this machine.")
def add(invocation: Invocation, name: str, database: str | None) -> None:
    """Serve the project NAME on this node."""
    from membridge.node import registry  # noqa: PLC0415 - loaded only where it is used

    path = os.path.abspath(Path(database).expanduser()) if database else None  # noqa: PTH100 - a link stays a link
    request = AddProjectRequest(name=name, database=path)
    try:
        reply = requests.ask_daemon(invocation, subjects.ADD_PROJECT, request, node=invocation.settings.node.id)
    except (NoResponderError, BusUnavailableError):
        registry.add(invocation.settings, name, path)
        reply = _registered(invocation)
    invocation.show(reply, _print)


@command("remove", impact=Impact.WRITE)
@click.argument("name", metavar="NAME")
@click.option("--yes", is_flag=True, help="Remove it without asking.")
def remove(invocation: Invocation, name: str, yes: bool) -> None:  # noqa: FBT001 - click's flag
    """Stop serving the project NAME on this node.

    Its database, its backups and all snapshots stay.
    """
    from membridge.node import registry  # noqa: PLC0415 - loaded only where it is used

    config = registry.removable(invocation.settings, name)
    if not yes:
        question = f"Stop serving {config.name} on this node? Its database {config.database} stays."
        invocation.confirm(question, otherwise=f"project {config.name} was not removed")
    request, own = RemoveProjectRequest(name=name), _as_project(invocation, config.id)
    try:
        reply = requests.ask_daemon(own, subjects.REMOVE_PROJECT, request, node=invocation.settings.node.id)
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
    from membridge.node import registry  # noqa: PLC0415 - loaded only where it is used

    return ProjectsReply(projects=[_unseen(item, UNASKED) for item in registry.load(invocation.settings)])


def _unseen(item: ProjectConfig, why: str) -> ProjectPresence:
    """Return a project of the list whose state is not known."""
    return ProjectPresence(project=item.id, name=item.name, role=Role.NONE, database=str(item.database), error=why)


def _as_project(invocation: Invocation, project: ProjectId) -> Invocation:
    """Return the invocation that connects with the project's own key, where the server has accounts."""
    # A copy takes along the settings that were read already.
    made = copy.copy(invocation)
    made.project_name = project
    return made


def _print(reply: ProjectsReply) -> None:
    def row(item: ProjectPresence) -> tuple[str, ...]:
        seen = ("?", "?") if item.error else (item.role, str(item.mirror_seq))
        return (item.name, item.project, *seen, tables.short(item.database))

    tables.table(COLUMNS, map(row, reply.projects), empty="no project")
    for item in reply.projects:
        if item.error and item.error != UNASKED:
            click.echo(units.printable(f"{item.name}: {item.error}"), err=True)
    if any(item.error == UNASKED for item in reply.projects):
        click.echo(UNASKED, err=True)


def _print_removed(reply: RemoveProjectReply) -> None:
    click.echo(f"this node no longer serves {reply.name}; its database {reply.database} and its snapshots stay")
    if reply.led:
        click.echo("this node was its primary; if no other node takes over, run `membridge leader select NODE`")
    click.echo(
        f"to serve it again: `membridge project add {shlex.quote(reply.name)} --database {shlex.quote(reply.database)}`"
    )
