"""Send this machine's portable configuration: what changed here since the last common state."""

from collections.abc import Mapping

from membridge.aio import threads
from membridge.aio.deadline import Deadline
from membridge.claudeconfig import common_state, plan, shared_state
from membridge.claudeconfig.collect import Place
from membridge.claudeconfig.plan import Plan
from membridge.claudeconfig.shared_state import LostState, Shared
from membridge.claudeconfig.three_sides import Look, Wanted, look
from membridge.claudeconfig.three_way import Decision, Leaf
from membridge.errors import ConflictError, HeadMovedError
from schemas.claude_config import ConfigHead

#: Pushes in a row that other machines may overtake.
TRIES = 4
#: Conflicts that a message names.
_NAMED = 5


async def push(
    place: Place, shared: Shared, wanted: Wanted, *, delete: bool, deadline: Deadline
) -> tuple[Look, Plan, ConfigHead | None]:
    """Send what changed here; return what was seen and done, and the new head, None where nothing had to be sent.

    A push that another one overtook is planned again. Errors: ConflictError where a file was changed on both sides,
    HeadMovedError, TooLargeError, and those of `look`; nothing is sent then.
    """
    for left in reversed(range(TRIES)):
        seen = await look(place, shared, wanted, deadline=deadline)
        made = plan.push(seen.sides(wanted), delete=delete)
        _refuse_conflicts(made, seen)
        if made.files == seen.theirs and not isinstance(seen.known, LostState):
            await _remember(place, shared, made.common, seen.known.head if seen.known else None)
            return seen, made, None
        try:
            head = await shared_state.commit(shared, made.files, seen.known, deadline=deadline)
        except HeadMovedError:
            if not left:
                raise
            continue
        await _remember(place, shared, made.common, head)
        return seen, made, head
    raise AssertionError("the last try raises")


async def _remember(place: Place, shared: Shared, common: Mapping[str, Leaf], head: ConfigHead | None) -> None:
    body = await threads.run(common_state.packed, common, head, project=shared.project, node=shared.node)
    await threads.run(common_state.save, place.state, body)


def _refuse_conflicts(made: Plan, seen: Look) -> None:
    conflicts = sorted({f"{one.path} ({one.key})" if one.key else one.path for one in made.of(Decision.CONFLICT)})
    if not conflicts:
        return
    more = f" and {len(conflicts) - _NAMED} more" if len(conflicts) > _NAMED else ""
    node = seen.known.head.node if seen.known else ""
    raise ConflictError(
        f"nothing was sent: changed here and on node {node}: {', '.join(conflicts[:_NAMED])}{more}",
        remedy="run `membridge claude-config pull`: it keeps both versions; then join them and push again",
    )
