"""Why something that is tried again and again fails: logged when it is new, and at debug level while it lasts."""

from membridge.errors import MembridgeError
from membridge.system.logging import Logger


class Problem:
    """One thing that may fail, and why it failed last. `event` is the line that says so, a new reason at `level`."""

    def __init__(self, log: Logger, event: str, *, level: str = "warning") -> None:
        self._log, self._event, self._level = log, event, level
        #: Why it failed last, empty when it did not.
        self.reason = ""

    def tell(self, reason: str, **fields: object) -> None:
        """Log that it failed, at debug level for the reason of the last time."""
        write = self._log.debug if reason == self.reason else getattr(self._log, self._level)
        self.reason = reason
        write(self._event, reason=reason, **fields)

    def failed(self, error: Exception, **fields: object) -> None:
        """Log an error: an expected one with its remedy, any other with its traceback."""
        if isinstance(error, MembridgeError):
            self.tell(error.message, remedy=error.remedy, **fields)
        else:
            self.tell(f"{type(error).__name__}: {error}", exc_info=error, **fields)

    def over(self) -> bool:
        """Note that it works; return whether it had failed."""
        had, self.reason = bool(self.reason), ""
        return had
