"""Why a body is rejected: msgspec's messages in our words, each with the field at fault.

A message is a sentence about the field ("priority may be at most 9"): the reader knows the request, not always the
name of its field.
"""

import re
import typing
from dataclasses import dataclass
from enum import Enum

import msgspec

#: Each pattern in words.
FORMS: dict[str, str] = {
    r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\Z":
        "an id such as 0f7f2f5e-6a43-4c5c-9d49-0a8a0b3d7a11",
    r"^[A-Za-z0-9_-]{1,64}\Z": "a name of 1 to 64 characters out of A-Z a-z 0-9 _ -",
    r"^[A-Za-z0-9][A-Za-z0-9_.:=-]{0,62}\Z": "1 to 63 characters out of A-Z a-z 0-9 _ . : = -, a letter or digit first",
    r"^[0-9a-f]{16}\Z": "16 hex digits",
    r"^[0-9a-f]{32}\Z": "32 hex digits",
    r"^[0-9a-f]{64}\Z": "a sha256 in hex",
    r"^U[A-Z2-7]{55}\Z": "the public half of a user's nkey",
    r"^(list|retry|drop)\Z": "list, retry or drop",
    r"^(\*|[a-z][a-z0-9_]{0,31})\Z": "* or a name of 1 to 32 characters out of a-z 0-9 _, a letter first",
    r"^[0-9]{1,16}-[0-9a-f]{8}\.db\Z": "the name of the file of an extracted state, such as 12-0a1b2c3d.db",
    r"^[a-z2-7]{12}\Z": "the id of a key: 12 characters out of a-z 2-7",
}  # fmt: skip
#: Names of JSON's types.
_KINDS = {
    "str": "text", "int": "a whole number", "float": "a number", "bool": "true or false", "object": "an object",
    "array": "a list", "null": "null",
}  # fmt: skip
_UNITS = {"str": "character", "array": "entry", "object": "entry"}
_PLACE = re.compile(r"^(?P<said>.*?)(?: - at (?:`key` in )?`(?P<path>[^`]*)`)?$", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(\w+)`")
_LENGTH = re.compile(r"Expected `(str|array|object)` of length (>=|<=|==) (\d+)")
_RANGE = re.compile(r"Expected `(?:int|float)` (>=|<=|>|<) (-?[\d.]+)")
_FORM = re.compile(r"Expected `str` matching regex '(.*)'", re.DOTALL)
_TYPE = re.compile(r"Expected `([^`]+)`, got `([^`]+)`")
_CHOICE = re.compile(r"Invalid enum value (.*)", re.DOTALL)
_BROKEN = re.compile(r"JSON is malformed: (.*)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a body is refused, as a sentence, and the field at fault; None when it is the whole body."""

    message: str
    field: str | None = None


def explain(error: Exception, kind: type[msgspec.Struct]) -> Refusal:
    """Return why a body does not match `kind`."""
    text = str(error)
    if isinstance(error, RecursionError):
        return Refusal("the body is nested too deeply")
    if isinstance(error, UnicodeDecodeError):
        return Refusal("the body is not UTF-8")
    if broken := _BROKEN.match(text):
        return Refusal(f"the body is not JSON: {broken[1]}")
    if not isinstance(error, msgspec.ValidationError):
        return Refusal("the body is not complete JSON, or holds half of a surrogate pair")
    found = _PLACE.match(text)
    said, path = (found["said"], found["path"] or "") if found else (text, "")
    field = path.removeprefix("$").removeprefix(".").replace("[...]", "")
    if missing := _MISSING.match(said):
        field = f"{field}.{missing[1]}" if field else missing[1]
        return Refusal(f"{field} is required", field)
    return Refusal(f"{field or 'the body'} {_why(said, kind, field)}", field or None)


def _why(said: str, kind: type[msgspec.Struct], field: str) -> str:
    if length := _LENGTH.match(said):
        return _length(length[1], length[2], int(length[3]))
    if bound := _RANGE.match(said):
        words = {">=": "must be at least", "<=": "may be at most", ">": "must be more than", "<": "must be less than"}
        return f"{words[bound[1]]} {bound[2]}"
    if form := _FORM.match(said):
        pattern = form[1].replace("\\\\", "\\")
        return f"must be {FORMS[pattern]}" if pattern in FORMS else f"must match {pattern}"
    if wrong := _TYPE.match(said):
        wanted = " or ".join(_KINDS.get(one, one) for one in wrong[1].split(" | "))
        return f"must be {wanted}, not {_KINDS.get(wrong[2], wrong[2])}"
    if choice := _CHOICE.match(said):
        choices = ", ".join(_choices(kind, field))
        return f"may not be {choice[1]}" + (f": choose one of {choices}" if choices else "")
    return f"is not valid: {said.replace('`', '')}"


def _length(kind: str, relation: str, number: int) -> str:
    if relation == ">=" and number == 1:
        return "may not be empty"
    unit = _UNITS[kind] if number == 1 else {"character": "characters", "entry": "entries"}[_UNITS[kind]]
    word = {">=": "must have at least", "<=": "may have at most", "==": "must have exactly"}[relation]
    return f"{word} {number:,} {unit}"


def _choices(kind: type[msgspec.Struct], field: str) -> list[str]:
    """Return what the enumeration at `field` may be; nothing when the field is not found."""
    at: object = kind
    for name in re.findall(r"[A-Za-z_]\w*", field):
        struct = next((one for one in _parts(at) if isinstance(one, type) and issubclass(one, msgspec.Struct)), None)
        fields = {one.encode_name: one.type for one in msgspec.structs.fields(struct)} if struct is not None else {}
        at = fields.get(name)
    enumeration = next((one for one in _parts(at) if isinstance(one, type) and issubclass(one, Enum)), None)
    return [str(one.value) for one in enumeration] if enumeration is not None else []


def _parts(kind: object) -> list[object]:
    """Return a type and all that it is made of: members of a union, items of a list."""
    return [kind, *(deeper for part in typing.get_args(kind) for deeper in _parts(part))]
