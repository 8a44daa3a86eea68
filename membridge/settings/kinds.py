"""Kinds of values: how one setting's raw value is read and what is allowed.

A raw value is text from the environment or a TOML value. A parser raises ValueError, and nothing else, for a value that
it does not accept. It reads neither the environment nor the disk.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Generic, TypeVar, cast
from urllib.parse import urlsplit

from schemas.identity import NodeId, canonical_id, node_id_of_host, token

T_co = TypeVar("T_co", covariant=True)
C = TypeVar("C", bound=StrEnum)

MASK = "***"

#: Longest text that any setting takes, in characters; the longest path that Linux knows.
MAX_LENGTH = 4096
#: Longest part of a wrong value that an error repeats, in characters.
QUOTED_LENGTH = 80

_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_NUMBER = re.compile(r"[+-]?[0-9]{1,18}(\.[0-9]{1,18})?")
_HOST_NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_USERINFO = re.compile(r"(?<=://)[^\s,]+(?=@)")
_FLAGS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


@dataclass(frozen=True, slots=True)
class Secret:
    """A value that prints as `***`; `reveal` returns it."""

    value: str

    def reveal(self) -> str:
        """Return the secret itself."""
        return self.value

    def __repr__(self) -> str:
        return MASK

    __str__ = __repr__


@dataclass(frozen=True, slots=True)
class Kind(Generic[T_co]):
    """What a setting holds: `allowed` for people, `parse(raw, home)` for loading; an address may hold a password."""

    allowed: str
    parse: Callable[[object, Path], T_co]
    secret: bool = False
    address: bool = False

    def quote(self, raw: object) -> str:
        """Return a value, right or wrong, as an error may show it: short and without secrets."""
        if self.secret:
            return MASK
        text = str(raw) if self.address else ""
        quoted = repr(f"{MASK}@{text.rpartition('@')[2]}" if "@" in text else raw)
        return quoted if len(quoted) <= QUOTED_LENGTH else f"{quoted[:QUOTED_LENGTH]}..."


def mask_userinfo(text: str) -> str:
    """Return `text` with what stands between `://` and `@` masked."""
    return _USERINFO.sub(MASK, text)


def show(value: object) -> str:
    """Return `value` as text for people: a secret is masked, None is empty."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, tuple):
        return ", ".join(show(item) for item in cast("tuple[object, ...]", value))
    return mask_userinfo(str(value))


def optional(kind: Kind[T_co]) -> Kind[T_co | None]:
    """Return `kind` for a setting that may stay unset."""
    return Kind(kind.allowed, kind.parse, kind.secret, kind.address)


def whole(least: int, most: int) -> Kind[int]:
    """Return the kind of whole numbers from `least` to `most`."""

    def parse(raw: object, _home: Path) -> int:
        if isinstance(raw, str) and _INTEGER.fullmatch(raw.strip()):
            raw = int(raw)
        if isinstance(raw, bool) or not isinstance(raw, int) or not least <= raw <= most:
            raise ValueError
        return raw

    return Kind(f"a whole number from {least} to {most}", parse)


def number(*, most: float, least: float = 0.0, above: float | None = None) -> Kind[float]:
    """Return the kind of numbers from `least` (or strictly above `above`) to `most`."""

    def parse(raw: object, _home: Path) -> float:
        if isinstance(raw, str) and _NUMBER.fullmatch(raw.strip()):
            raw = float(raw)
        if isinstance(raw, bool) or not isinstance(raw, int | float) or not math.isfinite(raw):
            raise ValueError
        if not (raw > above if above is not None else raw >= least) or raw > most:
            raise ValueError
        return float(raw)

    bound = f"above {above:g}, at most {most:g}" if above is not None else f"from {least:g} to {most:g}"
    return Kind(f"a number {bound}", parse)


def one_of(choices: type[C]) -> Kind[C]:
    """Return the kind of the words in `choices`."""

    def parse(raw: object, _home: Path) -> C:
        return choices(_line(raw).lower())

    return Kind("one of " + ", ".join(choice.value for choice in choices), parse)


def one_number_of(*choices: int) -> Kind[int]:
    """Return the kind of the whole numbers in `choices`."""
    inner = whole(min(choices), max(choices))

    def parse(raw: object, home: Path) -> int:
        value = inner.parse(raw, home)
        if value not in choices:
            raise ValueError
        return value

    return Kind("one of " + ", ".join(map(str, choices)), parse)


def _line(raw: object) -> str:
    """Return `raw` when it is one line of text without control characters."""
    if not isinstance(raw, str) or not raw.strip() or _CONTROL.search(raw) or len(raw) > MAX_LENGTH:
        raise ValueError
    return raw.strip()


def _flag(raw: object, _home: Path) -> bool:
    value = raw if isinstance(raw, bool) else _FLAGS.get(str(raw).strip().lower())
    if value is None:
        raise ValueError
    return value


def _text(raw: object, _home: Path) -> str:
    return _line(raw)


def _secret(raw: object, _home: Path) -> Secret:
    return Secret(_line(raw))


def _path(raw: object, home: Path) -> Path:
    text = _line(raw)
    if text == "~" or text.startswith("~/"):
        return home / text[2:]
    path = Path(text)
    if not path.is_absolute():
        raise ValueError
    return path


def _node(raw: object, _home: Path) -> NodeId:
    text = _line(raw)
    if not _HOST_NAME.fullmatch(text):
        raise ValueError
    return node_id_of_host(text)


def _project(raw: object, _home: Path) -> str:
    text = _line(raw)
    text.encode()
    canonical_id(text)
    return text


def _url(text: str, schemes: tuple[str, ...]) -> str:
    parts = urlsplit(text)
    if parts.scheme not in schemes or not parts.hostname or parts.path.strip("/") or parts.query or parts.fragment:
        raise ValueError
    if parts.port == 0:
        raise ValueError
    _check_host(parts.hostname)
    # Others tell by the scheme whether to verify a certificate, so it has one spelling.
    return f"{parts.scheme}{text[len(parts.scheme) :]}"


def _check_host(name: str) -> None:
    """Raise ValueError for what no resolver takes: what that raises is no error of the network."""
    # Python's form of other names than these has half a MiB of tables, which a daemon does not need.
    ascii_name = name if name.isascii() else name.encode("idna").decode()
    if not all(0 < len(label) < 64 for label in ascii_name.removesuffix(".").split(".")):
        raise ValueError


def _servers(raw: object, _home: Path) -> tuple[str, ...]:
    items = cast("list[object]", raw) if isinstance(raw, list) else _line(raw).split(",")
    texts = [_line(item) for item in items]
    urls = (text if "://" in text else f"nats://{text}" for text in texts)
    found = tuple(_url(url, ("nats", "tls")) for url in urls)
    if not found:
        raise ValueError
    return found


def _token(raw: object, _home: Path) -> str:
    return token(_line(raw))


def _listen(raw: object, _home: Path) -> str:
    host, colon, port = _line(raw).rpartition(":")
    plain = host.removeprefix("[").removesuffix("]")
    if not colon or not re.fullmatch(r"[A-Za-z0-9.:_-]{1,255}", plain) or not _is_port(port):
        raise ValueError
    return f"{host}:{port}"


def address_and_port(listen: str) -> tuple[str, int]:
    """Return both halves of what the kind `LISTEN` allows; an IPv6 address without its brackets."""
    address, _, port = listen.rpartition(":")
    return address.removeprefix("[").removesuffix("]"), int(port)


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdecimal() and 0 < int(text) < 65536


def _endpoint(raw: object, _home: Path) -> str:
    text = _line(raw)
    url = _url(text if "://" in text else f"http://{text}", ("http", "https")).rstrip("/")
    if urlsplit(url).username is not None:
        raise ValueError
    return url


def _origins(raw: object, home: Path) -> tuple[str, ...]:
    """Return origins as a browser names them: lower case, no path, no port that the scheme has anyway."""
    items = cast("list[object]", raw) if isinstance(raw, list) else _line(raw).split(",")
    found: list[str] = []
    for item in items:
        if "://" not in _line(item):
            raise ValueError
        parts = urlsplit(_endpoint(item, home).lower())
        usual = {"http": 80, "https": 443}[parts.scheme]
        found.append(f"{parts.scheme}://{parts.netloc.removesuffix(f':{usual}')}")
    return tuple(found)


FLAG = Kind("1, 0, true, false, yes, no, on or off", _flag)
TEXT = Kind("one line of text", _text)
SECRET = Kind("one line of text", _secret, secret=True)
PATH = Kind("an absolute path, or one that starts with ~/", _path)
NODE = Kind("1 to 64 of A-Z a-z 0-9 _ - (a dot counts as -)", _node)
PROJECT = Kind("1 to 256 characters in one line", _project)
SERVERS = Kind("nats://HOST:PORT or tls://HOST:PORT, several with commas between them", _servers, address=True)
TOKEN = Kind("1 to 64 of A-Z a-z 0-9 _ -", _token)
LISTEN = Kind("ADDRESS:PORT, such as 0.0.0.0:4222", _listen)
ENDPOINT = Kind("http://HOST:PORT or https://HOST:PORT, without user name", _endpoint, address=True)
ORIGINS = Kind("https://HOST or http://HOST:PORT, several with commas between them; never *", _origins)
