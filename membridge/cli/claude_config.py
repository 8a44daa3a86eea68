"""`membridge claude-config`: the portable part of `~/.claude` between machines. It needs no daemon."""

import asyncio
import os
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterable
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import click

from membridge.aio.deadline import Deadline
from membridge.bus.connection import connect
from membridge.bus.kv import open_bucket
from membridge.claudeconfig import memory_folders
from membridge.claudeconfig import plan as planning
from membridge.claudeconfig import pull as pulling
from membridge.claudeconfig import push as pushing
from membridge.claudeconfig.collect import Place, Refusal, printable
from membridge.claudeconfig.plan import Change
from membridge.claudeconfig.pull import Consent, Pulled
from membridge.claudeconfig.report import ConfigChange, ConfigNote, ConfigReply, ConfigStays, UndoReply
from membridge.claudeconfig.rules import Requested
from membridge.claudeconfig.shared_state import Shared
from membridge.claudeconfig.three_sides import Look, Wanted, look
from membridge.claudeconfig.three_way import Decision
from membridge.cli import asking, tables, units
from membridge.cli.command import DefaultGroup, Invocation, command, quiet
from membridge.errors import InvalidRequestError, RefusedError, UnknownProjectError
from membridge.system.pidfile import only_one
from membridge.wiring.bus import bus_options
from membridge.wiring.store import open_store
from schemas.claude_config import CLAUDE_CONFIG
from schemas.subjects import Impact

T = TypeVar("T")
CONNECT = 5.0
#: What a decision is called in JSON, and what a line for people says.
ACTIONS = {
    Decision.SEND: ("send", "goes"),
    Decision.TAKE: ("take", "comes"),
    Decision.GONE_HERE: ("gone_here", "deleted here"),
    Decision.GONE_THERE: ("gone_there", "deleted there"),
    Decision.CONFLICT: ("conflict", "both changed"),
}
COLUMNS = ("", "*file", "*key")
MEMORY = click.option("--memory", is_flag=True, help="Also the auto memory of repositories, by their git remote.")
ALIAS = click.option(
    "--alias", "aliases", multiple=True, metavar="NAME=FOLDER", help="Name for the memory of a FOLDER without a remote."
)
PLANS = click.option("--plans", is_flag=True, help="Also the folder plans.")


@command("diff", impact=Impact.READ)
@MEMORY
@ALIAS
@PLANS
def diff(invocation: Invocation, *, memory: bool, aliases: tuple[str, ...], plans: bool) -> None:
    """Show what would go, come or stay, and why."""

    async def seen(place: Place, shared: Shared, wanted: Wanted, deadline: Deadline) -> tuple[Look, list[Change]]:
        found = await look(place, shared, wanted, deadline=deadline)
        return found, planning.pull(found.sides(wanted), delete=False).changes

    found, changes = _run(invocation, Asked(Requested(memory=memory, plans=plans), aliases), seen)
    invocation.show(_reply(invocation, found, changes), _print_diff)


@command("push", impact=Impact.WRITE)
@click.option("--delete", is_flag=True, help="Also delete for all what was deleted here.")
@click.option("--allow", multiple=True, metavar="FILE", help="Send FILE although it looks as if it held a secret.")
@MEMORY
@ALIAS
@PLANS
def push(
    invocation: Invocation,
    *,
    delete: bool,
    allow: tuple[str, ...],
    memory: bool,
    aliases: tuple[str, ...],
    plans: bool,
) -> None:
    """Send what changed here.

    Instructions, skills, agents, commands and portable settings go to all machines of the project.
    """

    async def pushed(place: Place, shared: Shared, wanted: Wanted, deadline: Deadline) -> ConfigReply:
        seen, made, head = await pushing.push(place, shared, wanted, delete=delete, deadline=deadline)
        sent = made.of(Decision.SEND, *([Decision.GONE_HERE] if delete else []))
        reply = _reply(invocation, seen, sent if head else [])
        if head is None:
            return reply
        return ConfigReply(
            project=reply.project, seq=head.seq, node=head.node, changes=reply.changes, stays=reply.stays,
            notes=reply.notes,
        )  # fmt: skip

    asked = Asked(Requested(memory=memory, plans=plans), aliases, frozenset(allow))
    invocation.show(_run(invocation, asked, pushed), _print_pushed)


@command("pull", impact=Impact.WRITE)
@click.option("--delete", is_flag=True, help="Also delete here what was deleted on another machine.")
@click.option(
    "--yes/--no-programs",
    "programs",
    default=None,
    help="Take programs and plugins, or leave them out, without asking.",
)
@click.option("--undo", is_flag=True, help="Put back what the last pull changed.")
@MEMORY
@ALIAS
@PLANS
def pull(  # noqa: PLR0913 - as many as it has options
    invocation: Invocation,
    *,
    delete: bool,
    programs: bool | None,
    undo: bool,
    memory: bool,
    aliases: tuple[str, ...],
    plans: bool,
) -> None:
    """Bring what other machines changed here.

    A file that both sides changed stays, with the other version beside it.
    """
    if undo:
        with _alone(invocation) as place:
            done = pulling.undo_newest(place)
        left = [_stays(one) for one in done.left]
        reply = UndoReply(pulled_at=done.pulled_at, restored=[printable(path) for path in done.restored], left=left)
        invocation.show(reply, _print_undone)
        return
    consent = _consent(invocation, programs)

    async def pulled(place: Place, shared: Shared, wanted: Wanted, deadline: Deadline) -> Pulled:
        return await pulling.pull(place, shared, wanted, delete=delete, consent=consent, deadline=deadline)

    done = _run(invocation, Asked(Requested(memory=memory, plans=plans), aliases), pulled)
    invocation.show(_pulled_reply(invocation, done, delete=delete), _print_pulled)


claude_config = DefaultGroup(
    "claude-config",
    default="diff",
    commands=[diff, push, pull],
    summary="Share Claude Code's own configuration between machines.",
)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a command was asked for beside its project."""

    requested: Requested
    aliases: tuple[str, ...] = ()
    allowed: frozenset[str] = frozenset()

    def wanted(self, place: Place) -> Wanted:
        """Return what a run is about. Blocking: it asks git for remotes."""
        if not self.requested.memory:
            if self.aliases:
                raise InvalidRequestError("--alias is for --memory", remedy="add --memory", field="alias")
            return Wanted(self.requested, self.allowed)
        aliases = memory_folders.save_aliases(place.state, self.aliases)
        found = memory_folders.find(place, aliases, Path.cwd())
        return Wanted(self.requested, self.allowed, found.folders, tuple(found.refused))


def _run(invocation: Invocation, asked: Asked, act: Callable[[Place, Shared, Wanted, Deadline], Awaitable[T]]) -> T:
    """Do one thing with the stores of the project, as the only process that does on this machine."""
    quiet(invocation.settings)

    async def run(place: Place, wanted: Wanted) -> T:
        deadline = Deadline.after(invocation.settings.lane.operation_timeout_seconds)
        async with _stores(invocation, deadline) as shared:
            return await act(place, shared, wanted, deadline)

    with _alone(invocation) as place:
        return asyncio.run(run(place, asked.wanted(place)))


@asynccontextmanager
async def _stores(invocation: Invocation, deadline: Deadline) -> AsyncGenerator[Shared]:
    settings = invocation.settings
    served = asking.served_project(invocation)
    if served is None:
        raise UnknownProjectError(f"this node does not serve project {invocation.project_name!r}", field="project")
    options = bus_options(settings, "membridge command", served.nkey_seed_file)
    async with connect(options, deadline=deadline.sooner(CONNECT)) as bus, open_store(bus, settings) as store:
        heads = await open_bucket(bus, CLAUDE_CONFIG, replicas=settings.nats.replicas, deadline=deadline)
        yield Shared(store, heads, served.id, settings.node.id)


@contextmanager
def _alone(invocation: Invocation) -> Generator[Place]:
    """Yield where the configuration is, for the only process of this machine that works on it."""
    settings = invocation.settings
    config = Path(os.environ.get("CLAUDE_CONFIG_DIR") or Path.home() / ".claude").expanduser()
    state = settings.node.state_dir / "claude-config" / asking.project_id(invocation)
    with only_one(state, "claude-config"):
        yield Place(config=config.resolve(), home=Path.home().resolve(), state=state)


def _consent(invocation: Invocation, programs: bool | None) -> Consent:  # noqa: FBT001 - yes, no, or ask
    """Return what decides whether programs come here."""

    def ask(coming: list[Change], commands: list[str]) -> bool:
        if programs is not None:
            return programs
        if invocation.as_json or not sys.stdin.isatty():
            raise RefusedError(
                f"nothing was written: {units.count(len(coming), 'program')} would come here, such as "
                f"{_name(coming[0])}, and without a terminal it cannot ask",
                remedy="look at `membridge claude-config diff`, then run it again with --yes or --no-programs",
            )
        click.echo("These would come here, and they run code on this machine:", err=True)
        for change in coming:
            click.echo(f"  {_name(change)}", err=True)
        for one in commands:
            click.echo(f"  {units.printable(one)}", err=True)
        return click.confirm("Take them? All else comes either way.", err=True)

    return ask


def _reply(invocation: Invocation, seen: Look, changes: Iterable[Change]) -> ConfigReply:
    head = seen.known.head if seen.known else None
    served = asking.served_project(invocation)
    return ConfigReply(
        project=served.name if served else "",
        seq=head.seq if head else 0,
        node=head.node if head else "",
        changes=[_changed(change) for change in changes],
        stays=[_stays(one) for one in [*seen.ours.refused, *seen.refused]],
        notes=[ConfigNote(path=printable(note.path), line=note.line, text=note.text) for note in seen.ours.notes],
    )


def _pulled_reply(invocation: Invocation, done: Pulled, *, delete: bool) -> ConfigReply:
    decisions = (Decision.TAKE, Decision.CONFLICT, *([Decision.GONE_THERE] if delete else []))
    written = [one for one in done.plan.of(*decisions) if one.path not in done.settled.unwritten]
    reply = _reply(invocation, done.seen, written)
    declined = [Refusal(one.path, "it runs code, and was not taken", key=one.key) for one in done.declined]
    kept = [] if delete else done.plan.of(Decision.GONE_THERE)
    gone = [Refusal(one.path, "it was deleted on another machine: `--delete` deletes it", key=one.key) for one in kept]
    return ConfigReply(
        project=reply.project,
        seq=done.head.seq,
        node=done.head.node,
        changes=reply.changes,
        stays=reply.stays,
        notes=reply.notes,
        beside=[printable(path) for path in done.settled.beside],
        left=[_stays(one) for one in [*done.settled.refusals(), *declined, *gone]],
        plugins=done.commands,
        ran=done.ran,
    )


def _changed(change: Change) -> ConfigChange:
    return ConfigChange(
        path=printable(change.path), key=change.key, action=ACTIONS[change.decision][0], program=change.program
    )


def _stays(one: Refusal) -> ConfigStays:
    return ConfigStays(path=printable(one.path), key=one.key, line=one.line, reason=one.reason, fault=not one.expected)


def _name(change: Change) -> str:
    return units.printable(f"{change.path} ({change.key})" if change.key else change.path)


_WORDS = dict(ACTIONS.values())


def _print_changes(changes: list[ConfigChange], title: str) -> None:
    if changes:
        tables.line(title)
        rows = [(_WORDS[one.action], units.printable(one.path), units.printable(one.key)) for one in changes]
        tables.table(COLUMNS, rows, empty="")


def _print_diff(reply: ConfigReply) -> None:
    head = f"configuration {reply.seq} of node {reply.node}" if reply.seq else "no configuration shared yet"
    tables.line(f"project {reply.project}: {head}")
    _print_changes([one for one in reply.changes if not one.program], "")
    _print_changes([one for one in reply.changes if one.program], "These run code where they come:")
    if not reply.changes:
        tables.line("nothing differs")
    _print_faults(reply.stays)
    for note in reply.notes:
        tables.line(f"note: {note.path}, line {note.line}: {note.text}")
    rules = [one for one in reply.stays if not one.fault]
    if rules:
        tables.line("stays on this machine:")
        for one in rules:
            tables.line(f"  {_where(one)}: {one.reason}")


def _print_pushed(reply: ConfigReply) -> None:
    if reply.changes:
        tables.line(f"sent as configuration {reply.seq}: {units.count(len(reply.changes), 'change')}")
        for one in reply.changes:
            tables.line(f"  {_where(one)}")
    else:
        tables.line("nothing to push: nothing changed here")
    _print_faults(reply.stays)
    if any("seems to hold" in one.reason for one in reply.stays):
        tables.line("take a secret out of its file; if it is none, push again with `--allow FILE`")


def _print_pulled(reply: ConfigReply) -> None:
    taken = [one for one in reply.changes if one.action != "conflict"]
    tables.line(f"configuration {reply.seq} of node {reply.node}: {units.count(len(taken), 'change')} came here")
    for one in taken:
        tables.line(f"  {_where(one)}")
    for one in reply.changes:
        if one.action == "conflict":
            tables.line(f"  both changed: {_where(one)}")
    for path in reply.beside:
        tables.line(f"the other version is in {path}: join them, remove it, then push")
    for one in reply.left:
        tables.line(f"not taken: {_where(one)}: {one.reason}")
    if reply.plugins:
        tables.line("these commands brought the plugins:" if reply.ran else "for the plugins run:")
        for one in reply.plugins:
            tables.line(f"  {one}")
    if taken or reply.beside:
        tables.line("`membridge claude-config pull --undo` puts it back")


def _print_undone(reply: UndoReply) -> None:
    tables.line(f"undone, the pull of {tables.when(reply.pulled_at)}: {units.count(len(reply.restored), 'file')} back")
    for path in reply.restored:
        tables.line(f"  {path}")
    for one in reply.left:
        tables.line(f"left as it is: {_where(one)}: {one.reason}")


def _print_faults(stays: list[ConfigStays]) -> None:
    for one in stays:
        if one.fault:
            tables.line(f"refused: {_where(one)}: {one.reason}")


def _where(one: ConfigStays | ConfigChange) -> str:
    line = f", line {one.line}" if isinstance(one, ConfigStays) and one.line else ""
    return units.printable(f"{one.path}{f' ({one.key})' if one.key else ''}{line}")
