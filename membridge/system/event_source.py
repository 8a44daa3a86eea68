"""Events of files, and what to do where the system has none to give: say so once, poll, and try again later."""

import time
from collections.abc import Callable

from membridge.system import file_events
from membridge.system.file_events import FileEvents, Places
from membridge.system.logging import Logger
from membridge.system.problem import Problem

#: Seconds after which events are tried again where there were none to get.
TRY_AGAIN = 600.0


class EventSource:
    """The events of places that may move. While `events` is None its owner polls.

    `polled` is the line that says so with the reason, `watched` the one that says that events are there again.
    """

    def __init__(self, log: Logger, *, polled: str, watched: str, **fields: object) -> None:
        self._log, self._problem, self._watched, self._fields = log, Problem(log, polled), watched, fields
        self._places: Places = {}
        self._try_at = 0.0
        self.events: FileEvents | None = None

    def renew(self, wanted: Callable[[], Places]) -> bool:
        """Open the events where the places are now; return whether they were opened: a look is due then. Blocking.

        Raises FileNotFoundError, NotADirectoryError for a place that is missing: the next call tries at once.
        """
        if self.events is None and time.monotonic() < self._try_at:
            return False
        places = wanted()
        if self.events is not None and places == self._places and not self.events.is_over:
            return False
        self.close()
        try:
            self.events = file_events.open_events(places)
        except (FileNotFoundError, NotADirectoryError):
            self._try_at = 0.0
            raise
        except (OSError, AttributeError) as error:
            self.give_up(str(error), until=time.monotonic() + TRY_AGAIN)
            return False
        if self._problem.over():
            self._log.info(self._watched, **self._fields)
        self._places = places
        return True

    def give_up(self, reason: str, *, until: float) -> None:
        """Poll until this instant of `time.monotonic()`."""
        self.close()
        self._try_at = until
        self._problem.tell(reason, **self._fields)

    def close(self) -> None:
        """Close the descriptors."""
        opened, self.events, self._places = self.events, None, {}
        if opened is not None:
            opened.close()
