"""`apply`: one event, one state, and what follows from the two."""

from collections.abc import Callable
from typing import Any

from services.coordinator.engine import loading, placing, reports, requests, workers
from services.coordinator.engine.effects import Effect
from services.coordinator.engine.events import (
    Asked,
    Believed,
    Cancelled,
    Compared,
    Drained,
    Due,
    Event,
    Expired,
    HandedBack,
    Heard,
    Introduced,
    Lapsed,
    Loaded,
    NotTaken,
    Now,
    Removed,
    Renewed,
    Reported,
    Requeued,
    Silent,
    Stirred,
    Submitted,
    Taken,
    Unreadable,
)
from services.coordinator.engine.state import State
from services.coordinator.engine.step import Step


def apply(state: State, event: Event, now: Now) -> list[Effect]:
    """Change `state` by an event and return the effects, in their order.

    An event that is refused raises the MembridgeError of its answer; UnreadError asks for what the database has. What
    the event changed until then is still to be taken back, as it is when the database does not accept the rows:
    `State.rewind`.
    """
    step = Step(state, now)
    _HANDLERS[type(event)](step, event)
    return step.effects


def place(state: State, now: Now) -> list[Effect]:
    """Lease the ready tasks to free workers, until nothing more can be; return the effects."""
    step = Step(state, now)
    while state.counters.get("stirred"):
        placing.place(step)
    return step.effects


def _stirred(step: Step, event: Stirred) -> None:
    del event
    step.state.stir()


_HANDLERS: dict[type, Callable[[Step, Any], None]] = {
    Loaded: loading.loaded,
    Submitted: requests.submitted,
    Cancelled: requests.cancelled,
    Requeued: requests.requeued,
    Renewed: reports.renewed,
    Reported: reports.reported,
    HandedBack: reports.handed_back,
    Taken: reports.taken,
    NotTaken: reports.not_taken,
    Unreadable: reports.unreadable,
    Due: reports.due,
    Expired: reports.expired,
    Lapsed: reports.lapsed,
    Compared: reports.compared,
    Asked: placing.asked,
    Stirred: _stirred,
    Introduced: workers.introduced,
    Heard: workers.heard,
    Silent: workers.silent,
    Believed: workers.believed,
    Drained: workers.drained,
    Removed: workers.removed,
}
