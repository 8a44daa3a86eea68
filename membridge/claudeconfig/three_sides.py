"""One look at all three sides: what this machine has, what is shared, and what both had in common last."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from membridge.aio import threads
from membridge.aio.deadline import Deadline
from membridge.claudeconfig import collect, common_state, incoming, rules, shared_state
from membridge.claudeconfig.collect import Collected, Place, Refusal
from membridge.claudeconfig.common_state import Common
from membridge.claudeconfig.plan import Held, Sides
from membridge.claudeconfig.rules import Requested
from membridge.claudeconfig.shared_state import KnownState, LostState, Shared
from membridge.claudeconfig.three_way import Leaf


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a run is about: what travels on request, files allowed in spite of the scanner, and memory folders.

    `folders` are this machine's auto memories by the path under which they travel, `elsewhere` those that do not.
    """

    requested: Requested = field(default_factory=Requested)
    allowed: frozenset[str] = frozenset()
    folders: Mapping[str, Path] = field(default_factory=dict[str, Path])
    elsewhere: tuple[Refusal, ...] = ()

    def relevant(self, path: str) -> bool:
        """Return whether this run is about a file: requested, and of a memory that this machine has."""
        if rules.why_not(path, self.requested) is not None:
            return False
        return not path.startswith(f"{rules.MEMORY}/") or path.rpartition("/")[0] in self.folders


@dataclass(frozen=True, slots=True)
class Look:
    """The three sides as they were seen."""

    ours: Collected
    known: KnownState | LostState | None
    theirs: dict[str, Leaf]
    common: Common
    refused: list[Refusal]

    def sides(self, wanted: Wanted, held: Held = frozenset()) -> Sides:
        """Return the sides of a merge; `held` is left alone beside what this machine refuses."""
        own = {(one.path, one.key) for one in self.ours.refused if not one.expected and one.path in self._seen()}
        own |= {(rules.SETTINGS, key) for key in self.ours.held}
        return Sides(self.common.files, self.ours.files, self.theirs, wanted.relevant, held | own)

    def _seen(self) -> set[str]:
        return {*self.common.files, *self.ours.files, *self.theirs}


async def look(place: Place, shared: Shared, wanted: Wanted, *, deadline: Deadline) -> Look:
    """Read all three sides.

    Where the shared state is gone, older than the common one or of another lineage, nothing counts as common: what
    differs then is a conflict, and no change is lost by it. Errors: FileAccessError, InvalidRequestError for settings
    that cannot be read, and those of the stores.
    """
    ours = await threads.run(collect.collect, place, wanted.requested, wanted.folders)
    known = await shared_state.read(shared, deadline=deadline)
    common = await threads.run(common_state.load, place.state)
    if known is None or known.head.seq < common.seq or known.head.lineage != common.lineage:
        common = Common()
    theirs, refused = incoming.checked(known.files) if isinstance(known, KnownState) else ({}, [])
    if isinstance(known, LostState):
        theirs = dict(common.files)
        refused.append(Refusal(f"configuration {known.head.seq}", f"{known.error.message}: {known.error.remedy}"))
    refused += [*wanted.elsewhere, *_without_clone(theirs, wanted)]
    await threads.run(collect.screen, ours, {**common.files, **theirs}, wanted.allowed)
    return Look(ours, known, theirs, common, refused)


def _without_clone(theirs: Mapping[str, Leaf], wanted: Wanted) -> list[Refusal]:
    """Return the shared memories of repositories that this machine has no clone of."""
    if not wanted.requested.memory:
        return []
    keys = {path.rpartition("/")[0] for path in theirs if path.startswith(f"{rules.MEMORY}/")}
    return [
        Refusal(key, "this machine knows no clone of it: run the command inside one", expected=True)
        for key in sorted(keys - set(wanted.folders))
    ]
