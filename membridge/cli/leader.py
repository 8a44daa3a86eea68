"""`membridge leader`: which node is primary, and how to change it."""

from collections.abc import Iterator

import click

from membridge.cli import requests, tables
from membridge.cli.command import DefaultGroup, Invocation, command
from membridge.errors import InvalidRequestError
from schemas import subjects
from schemas.identity import InvalidTokenError, node_id
from schemas.leadership import LeadershipReply, Policy, SelectRequest
from schemas.node import Empty
from schemas.subjects import Impact


@command("show", impact=Impact.READ)
def show(invocation: Invocation) -> None:
    """Show the primary, its epoch and the policy."""
    reply = requests.ask_daemon(invocation, subjects.LEADERSHIP_GET, Empty())
    invocation.show(reply, print_leadership)


@command("select", impact=Impact.WRITE)
@click.argument("node", metavar="NODE")
@click.option(
    "--policy",
    type=click.Choice([item.value for item in Policy]),
    help="Which node leads after a lease expires: the freshest secondary (auto), or only the preferred one (manual).",
)
def select(invocation: Invocation, node: str, policy: str | None) -> None:
    """Make NODE the primary; a live primary hands over to it."""
    try:
        chosen = node_id(node)
    except InvalidTokenError as error:
        raise InvalidRequestError(str(error), remedy="`membridge nodes` lists the nodes", field="node") from error
    request = SelectRequest(node=chosen, policy=Policy(policy) if policy else None)
    reply = requests.ask_daemon(invocation, subjects.LEADERSHIP_SELECT, request)
    invocation.show(reply, print_leadership)


@command("resign", impact=Impact.WRITE)
def resign(invocation: Invocation) -> None:
    """Let the primary give up its lease."""
    reply = requests.ask_daemon(invocation, subjects.LEADERSHIP_RESIGN, Empty())
    invocation.show(reply, print_leadership)


leader = DefaultGroup(
    "leader", default="show", commands=[show, select, resign], summary="Show or change which node is primary."
)


def print_leadership(reply: LeadershipReply) -> None:
    """Print which node leads."""
    tables.facts(_facts(reply))


def _facts(reply: LeadershipReply) -> Iterator[tuple[str, str]]:
    record = reply.leader
    yield "primary", record.primary_node_id if record else "none: no node is primary"
    if record:
        yield "epoch", str(record.epoch)
        yield "since", tables.when(record.issued_at)
        yield "lease", f"{record.lease_seconds:g} s"
        yield "issued by", record.issued_by
    yield "policy", reply.policy
    yield "preferred", reply.preferred or ""
    yield "to do", "choose one: `membridge leader select NODE`" if reply.needs_ui_selection else ""
