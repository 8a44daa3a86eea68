"""Bring the shared configuration here: merge it, keep both versions of what both sides changed, write each file whole.

What a pull is about to write is kept first (`undo`), the new common state is saved last: a pull that is killed
anywhere is repeated or undone.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from membridge.aio import threads
from membridge.aio.deadline import Deadline
from membridge.claudeconfig import common_state, plan, plugins, rules, undo
from membridge.claudeconfig.collect import Place, Refusal
from membridge.claudeconfig.plan import Change, Held, Plan
from membridge.claudeconfig.settle import Settled, settle
from membridge.claudeconfig.shared_state import KnownState, LostState, Shared
from membridge.claudeconfig.three_sides import Look, Wanted, look
from membridge.claudeconfig.three_way import Leaf
from membridge.errors import FileAccessError, NotFoundError
from schemas.claude_config import ConfigHead

#: Is asked before programs come here: True takes them, False takes all but them.
Consent = Callable[[list[Change], list[str]], bool]


@dataclass(frozen=True, slots=True)
class Pulled:
    """What was seen, planned and written, and the commands for plugins."""

    seen: Look
    head: ConfigHead
    plan: Plan
    settled: Settled
    declined: list[Change] = field(default_factory=list[Change])
    commands: list[str] = field(default_factory=list[str])
    ran: bool = False


async def pull(
    place: Place, shared: Shared, wanted: Wanted, *, delete: bool, consent: Consent, deadline: Deadline
) -> Pulled:
    """Merge the shared configuration into this machine's.

    Errors: NotFoundError where nothing was pushed yet, FileAccessError, DiskFullError, and those of `look` and of
    `consent`. A file that cannot be written is reported in `settled`, and comes again with the next pull.
    """
    seen = await look(place, shared, wanted, deadline=deadline)
    if isinstance(seen.known, LostState):
        raise seen.known.error
    if seen.known is None:
        raise NotFoundError(
            "no machine has pushed a configuration yet", remedy="run `membridge claude-config push` on one that has it"
        )
    in_the_way = _in_the_way(seen, wanted)
    made = plan.pull(seen.sides(wanted, in_the_way), delete=delete)
    commands = plugins.commands(seen.ours.files.get(rules.PLUGINS), made.files.get(rules.PLUGINS))
    declined: list[Change] = []
    coming = plan.programs(made)
    if coming and not consent(coming, commands):
        declined, commands = coming, []
        made = plan.pull(seen.sides(wanted, in_the_way | plan.declined(made)), delete=delete)
    settled = await _write(place, shared, seen, seen.known, made, wanted)
    ran = await plugins.run(commands, place) if commands else False
    if commands:
        await _remember_plugins(place, shared, seen.known, made, settled)
    return Pulled(seen, seen.known.head, made, settled, declined, commands, ran)


async def _write(place: Place, shared: Shared, seen: Look, known: KnownState, made: Plan, wanted: Wanted) -> Settled:
    before = await threads.run(_common_bytes, place)
    settled = await threads.run(
        settle, place, seen, made, wanted, before, f"{rules.BESIDE}{known.head.node}-{known.head.seq}"
    )
    # What could not be written is still to be taken; plugins are common when they are there.
    common = {path: leaf for path, leaf in made.common.items() if path not in settled.unwritten}
    for path in (*settled.unwritten, rules.PLUGINS):
        old = seen.common.files.get(path)
        common.pop(path, None)
        if old is not None:
            common[path] = old
    if made.files.get(rules.PLUGINS) == seen.ours.files.get(rules.PLUGINS) and rules.PLUGINS in made.common:
        common[rules.PLUGINS] = made.common[rules.PLUGINS]
    await _remember(place, shared, common, known.head)
    return settled


async def _remember_plugins(place: Place, shared: Shared, known: KnownState, made: Plan, settled: Settled) -> None:
    """Make the plugins common that are here now."""
    common = dict((await threads.run(common_state.load, place.state)).files)
    here = await threads.run(plugins.here, place)
    merged = plugins.common(common.get(rules.PLUGINS), here, made.common.get(rules.PLUGINS))
    if merged is not None and rules.PLUGINS not in settled.unwritten:
        common[rules.PLUGINS] = merged
        await _remember(place, shared, common, known.head)


async def _remember(place: Place, shared: Shared, common: dict[str, Leaf], head: ConfigHead) -> None:
    body = await threads.run(common_state.packed, common, head, project=shared.project, node=shared.node)
    await threads.run(common_state.save, place.state, body)


def _common_bytes(place: Place) -> bytes | None:
    try:
        return (place.state / common_state.FILE).read_bytes()
    except FileNotFoundError:
        return None


def _in_the_way(seen: Look, wanted: Wanted) -> Held:
    """Hold what this machine takes for a file of another name, or what something else than a file is in place of."""
    here = set(seen.ours.places)
    coming = {path for path in seen.theirs if wanted.relevant(path) and path not in here}
    held = coming & rules.colliding({*here, *coming}).keys()
    links = [one.path for one in seen.ours.refused if not one.key and not one.expected]
    held |= {path for path in coming for link in links if path.startswith(f"{link}/")}
    seen.refused.extend(
        Refusal(path, "a file or link of this machine is in its way, or differs from it only by upper and lower case")
        for path in sorted(held)
    )
    return frozenset((path, "") for path in held)


def undo_newest(place: Place) -> undo.Undone:
    """Undo the newest pull of this machine. Errors: NotFoundError, FileAccessError."""
    if not place.config.is_dir():
        raise FileAccessError(f"{place.config} does not exist")
    return undo.undo(place)
