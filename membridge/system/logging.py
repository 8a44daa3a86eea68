"""Logs: one JSON object a line on standard error, or readable text on a terminal.

Field names are declared here once. Secrets are masked before a line is rendered: known values, secrets in addresses,
and fields with a secret's name. A log call never raises, whatever happens to standard error.
"""

import logging
import re
import sys
import threading
import traceback
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Final, TextIO, cast

import msgspec

from membridge.system import clock

#: Every field that a log line may have beside `ts`, `level`, `event`, `module` and `exception`, and what it holds.
FIELDS: Final[Mapping[str, str]] = {
    "address": "where something listens or was reached, without user name and password",
    "attempt": "how often it was tried",
    "backups": "how many backups",
    "by": "who asked: a user, a machine or a key",
    "bytes": "size in bytes",
    "code": "error code",
    "conflicts": "rows that two nodes changed differently",
    "database": "path of a live database",
    "deleted": "rows deleted",
    "detail": "what else is to be known, in words",
    "epoch": "fencing token of a leadership term",
    "error": "what went wrong, in words",
    "events": "how many events of Claude Code sessions",
    "generation": "how often the bus was connected",
    "in_seconds": "how long until the next try",
    "inserted": "rows inserted",
    "invitation": "id of an invitation",
    "job": "id of a push or pull",
    "key": "object key or KV key",
    "kind": "which sort of the thing that the event speaks of",
    "late": "parts that needed too long to stop",
    "line": "what another program wrote",
    "missed": "keys that the cheap comparison had not seen to differ",
    "name": "name of a part, bucket, stream or check",
    "node": "node id",
    "operation": "name of an operation",
    "outcome": "how it ended",
    "override": "the setting whose bound a request lifts",
    "path": "a file",
    "pid": "process id",
    "primary": "node id of the primary",
    "project": "canonical project id",
    "proposal": "id of a proposal",
    "reason": "why",
    "remedy": "what to do",
    "request_id": "which request caused it; the same on every line and in the reply",
    "restarts": "how often something began again",
    "role": "primary, secondary or none",
    "rows": "how many rows",
    "seconds": "how long it took or will take",
    "seq": "number of a snapshot",
    "server_version": "version of nats-server",
    "settings": "settings that were wrong or changed",
    "sign": "which sign of a database that went back in time was seen",
    "step": "step of a job",
    "subject": "NATS subject",
    "table": "tables of a database",
    "task": "id of a task",
    "updated": "rows updated",
    "url": "address of a service, without user name and password",
    "version": "version of Membridge, a server or a format",
}

_LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}
#: Attributes of every standard library record, which `extra` must not override.
_RECORD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime"}
_RESERVED: Final = frozenset({"event", "exc_info", "exception", "level", "ts"})
_BASIC = (str, int, float, bool, type(None))
_MASK: Final = "***"
_SECRET_NAME: Final = re.compile(r"password|passwd|secret|token|credential|authorization|api_?key|seed", re.IGNORECASE)
_USERINFO: Final = re.compile(r"(?<=://)[^\s,]+(?=@)")
_COLOURS: Final = {"debug": "2", "warning": "33", "error": "31"}
#: A known secret shorter than this is masked only as a whole value: masking it inside words would garble them.
_SHORTEST_CUT: Final = 4

_bound: ContextVar[Mapping[str, object]] = ContextVar("bound log fields")


class Logger:
    """A module's logger: one sentence about what happened, and fields of `FIELDS`."""

    def __init__(self, module: str) -> None:
        self._module = module

    def debug(self, event: str, /, **fields: object) -> None:
        """Log what helps to find a fault."""
        _lines.add("debug", event, self._module, fields)

    def info(self, event: str, /, **fields: object) -> None:
        """Log what happened in the ordinary course."""
        _lines.add("info", event, self._module, fields)

    def warning(self, event: str, /, **fields: object) -> None:
        """Log what went wrong and was handled."""
        _lines.add("warning", event, self._module, fields)

    def error(self, event: str, /, **fields: object) -> None:
        """Log what went wrong and needs attention."""
        _lines.add("error", event, self._module, fields)

    def exception(self, event: str, /, **fields: object) -> None:
        """Log an error with the traceback of the exception that is being handled."""
        _lines.add("error", event, self._module, {"exc_info": True, **fields})


def get_logger(name: str) -> Logger:
    """Return the logger of the module `name`; it may be made at import, before `setup`."""
    return Logger(name)


@contextmanager
def bound(**fields: object) -> Generator[None]:
    """Add these fields to every line logged in the body, also by the tasks that it starts."""
    token = _bound.set({**_bound.get({}), **fields})
    try:
        yield
    finally:
        _bound.reset(token)


def setup(
    *, form: str = "auto", level: str = "info", secrets: Iterable[str] = (), stream: TextIO | None = None
) -> None:
    """Send the lines of this process to `stream`, standard error unless given.

    `form` is `json`, `text` or `auto`: text on a terminal and JSON elsewhere. No line shows the values in `secrets`.
    Records of the standard library's logging come out the same way; of other packages only `warning` and above.
    """
    global _lines  # noqa: PLW0603 - where a process logs to is one thing for all its modules
    target = stream or sys.stderr
    readable = form == "text" or (form == "auto" and _is_terminal(target))
    _lines = _Lines(target, level, _Mask(secrets), _Text(colours=_is_terminal(target)) if readable else _Json())
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _Forward)]:
        root.removeHandler(handler)
    root.addHandler(_Forward())
    aio = logging.getLogger("asyncio")
    aio.removeFilter(_is_worth_a_line)
    aio.addFilter(_is_worth_a_line)
    root.setLevel(max(_LEVELS[level], logging.WARNING))
    logging.getLogger("membridge").setLevel(_LEVELS[level])


def _is_worth_a_line(record: logging.LogRecord) -> bool:
    """Return False for asyncio's meaningless warning at the end of each TLS connection."""
    return "eof_received() has no effect when using ssl" not in record.getMessage()


class _Forward(logging.Handler):
    """Writes the standard library's log records, with their `extra` fields, into the same stream."""

    def emit(self, record: logging.LogRecord) -> None:
        extra = {key: value for key, value in vars(record).items() if key not in _RECORD and key not in _RESERVED}
        level = next(level for level, least in reversed(_LEVELS.items()) if record.levelno >= least or level == "debug")
        with suppress(Exception):  # a library's broken format string must not become ours
            _lines.add(level, record.getMessage(), record.name, {"exc_info": record.exc_info, **extra})


class _Mask:
    """Replaces secrets in any value."""

    def __init__(self, secrets: Iterable[str]) -> None:
        self._whole = frozenset(secret for secret in secrets if secret)
        cut = sorted((secret for secret in self._whole if len(secret) >= _SHORTEST_CUT), key=len, reverse=True)
        self._cut = re.compile("|".join(map(re.escape, cut))) if cut else None

    def masked(self, fields: Mapping[str, object]) -> dict[str, object]:
        """Return the fields without secrets, as JSON values."""
        return {key: self._field(key, value) for key, value in fields.items()}

    def _field(self, key: str, value: object) -> object:
        if key not in FIELDS and _SECRET_NAME.search(key):
            return _MASK
        if isinstance(value, Mapping):
            items = cast("Mapping[object, object]", value).items()
            return {str(self._plain(name)): self._field(str(name), inner) for name, inner in items}
        if isinstance(value, list | tuple | set | frozenset):
            return [self._field("", inner) for inner in cast("Iterable[object]", value)]
        return self._plain(value)

    def _plain(self, value: object) -> object:
        if not isinstance(value, str) and isinstance(value, _BASIC):
            return value
        text = _text_of(value)
        if text in self._whole:
            return _MASK
        return _USERINFO.sub(_MASK, self._cut.sub(_MASK, text) if self._cut else text)


def _text_of(value: object) -> str:
    with suppress(Exception):  # a value whose own `__str__` fails must not lose the line
        return str(value).encode(errors="replace").decode()
    return f"<{type(value).__name__}>"


class _Text:
    """Renders a line for people: time, level, sentence, fields; a traceback below."""

    def __init__(self, *, colours: bool) -> None:
        self._colours = colours

    def render(self, level: str, event: dict[str, object]) -> str:
        sentence, trace = event.pop("event", ""), event.pop("exception", None)
        event.pop("module", None)
        time = clock.now().astimezone().strftime("%H:%M:%S")
        fields = "".join(f"  {key}={value}" for key, value in event.items())
        line = " ".join(f"{time} {level:<7} {sentence}{fields}".splitlines())
        if self._colours and level in _COLOURS:
            line = f"\x1b[{_COLOURS[level]}m{line}\x1b[0m"
        return line if trace is None else f"{line}\n{trace}"


class _Json:
    """Renders a line for programs: one JSON object."""

    def render(self, level: str, event: dict[str, object]) -> str:
        now = clock.stamp().replace("+00:00", "Z")
        return msgspec.json.encode({"ts": now, "level": level, **event}).decode()


class _Lines:
    """Writes whole lines, one at a time; if the stream is gone, they are lost."""

    def __init__(self, stream: TextIO, level: str, mask: _Mask, form: _Text | _Json) -> None:
        self._stream, self._least, self._mask, self._form = stream, _LEVELS[level], mask, form
        self._lock = threading.Lock()

    def add(self, level: str, sentence: str, module: str, fields: Mapping[str, object]) -> None:
        if _LEVELS[level] < self._least:
            return
        event: dict[str, object] = {"event": sentence, "module": module, **_bound.get({}), **fields}
        trace = _trace(event.pop("exc_info", None))
        if trace:
            event["exception"] = trace
        line = self._form.render(level, self._mask.masked(event))
        with self._lock, suppress(OSError, ValueError):
            self._stream.write(f"{line}\n")
            self._stream.flush()


def _trace(found: object) -> str:
    if found is True:
        found = sys.exc_info()
    error = cast("tuple[object, ...]", found)[1] if isinstance(found, tuple) else found
    return "".join(traceback.format_exception(error)).rstrip() if isinstance(error, BaseException) else ""


def _is_terminal(stream: TextIO) -> bool:
    with suppress(ValueError, OSError):
        return stream.isatty()
    return False


_lines = _Lines(sys.stderr, "info", _Mask(()), _Text(colours=False))
