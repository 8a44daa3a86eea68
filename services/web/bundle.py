"""Own modules and style sheets of a page as one file each, without comments: a browser loads two files, not forty.

It reads the JavaScript that the console is written in, and refuses what it does not know: imports stand at the start of
a line and name what they take, exports are `export const`, `function`, `class`, `default function` or one list. Lines
lose what they are indented by, so a template literal may not depend on that. A name that one module alone exports is
seen by all others, without a line that imports it.
"""

import posixpath
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

_IMPORT = re.compile(
    r'^import (?:\* as (?P<all>\w+)|(?P<one>\w+)|\{(?P<some>[^}]*)\}) from "(?P<of>[^"]+)";$', re.MULTILINE
)
_NAMED = re.compile(r"^export (?=(?:const|(?:async )?function\*?|class) (?P<name>\w+))", re.MULTILINE)
_DEFAULT = re.compile(r"^export default (?=function (?P<name>\w+))", re.MULTILINE)
_LIST = re.compile(r"^export \{(?P<names>[^}]*)\};$", re.MULTILINE)
_LEFT = re.compile(r"^(?:import|export)\b.*$", re.MULTILINE)
#: Space of a style sheet that may go; before a colon it may mean a descendant.
_SPACE_AROUND, _SPACE_AFTER = re.compile(r"\s*([{};,])\s*"), re.compile(r":\s+")
#: Space of a script that may go; a plus or minus beside another one needs it.
_SPACE_IN_CODE = re.compile(r" *(=>|[!=]==?|\|\||&&|\?\?|[=<>(){}\[\],:;?]) *")
_STRING = re.compile(r""""(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'""")
_REGEX = re.compile(r"/(?:[^/\\\n\[]|\\.|\[(?:[^\]\\\n]|\\.)*\])+/[a-z]*")
#: What may begin something else than code; after which of these, or after `return`, a slash begins a pattern.
_SPECIAL, _BEFORE_REGEX = re.compile(r"[\"'`/{}]"), "(,=:[!&|?{};\n"
#: Names that a browser has too: where they are used without an import, they are the browser's.
_OF_BROWSER = frozenset({"close", "event", "find", "history", "location", "name", "open", "origin", "status", "stop"})
_COMMENT = re.compile(r"^\s*(?://.*|/\*(?:[^*]|\*(?!/))*\*/\s*)$", re.MULTILINE)


class BundleError(ValueError):
    """A module that cannot be put together with the others."""


@dataclass(slots=True)
class _Module:
    body: str
    exports: dict[str, str] = field(default_factory=dict[str, str])
    imports: "list[tuple[re.Match[str], str]]" = field(default_factory=list["tuple[re.Match[str], str]"])


def stripped(text: str) -> str:
    """Return a text without its comments of whole lines, its empty lines and what its lines are indented by."""
    lines = (line.strip() for line in _COMMENT.sub("", text).splitlines())
    return "\n".join(line for line in lines if line)


def bundled(read: Callable[[str], str], entry: str) -> str:
    """Return the module `entry` with all that it imports as one. `read` returns a module's text by its path.

    Modules of packages, named without a path, stay imports. Raises BundleError.
    """
    found: dict[str, _Module] = {}
    packages: dict[str, None] = {}
    _add(read, entry, found, packages, ())
    numbers = {path: index for index, path in enumerate(found)}
    given = {name for line in packages for one in _IMPORT.finditer(line) for _, name in _named(one)}
    seen = _seen_by_all(found, given)
    named = {other for module in found.values() for one, other in module.imports if _taken(one, other, 0, seen)}
    parts: list[str] = []
    for path, module in found.items():
        taken = [_taken(one, other, numbers[other], seen) for one, other in module.imports]
        shown = [name for name, of in seen.items() if of == path and name not in given]
        whole = path in named or any(seen.get(name) != path for name in module.exports)
        parts.append(
            _wrapped([*filter(None, taken), module.body], module.exports, shown, numbers[path] if whole else None)
        )
    return "\n".join([*packages, *(squeezed(part) for part in parts)]) + "\n"


def _add(
    read: Callable[[str], str], path: str, found: dict[str, _Module], packages: dict[str, None], within: tuple[str, ...]
) -> None:
    """Add a module after those that it imports."""
    if path in within:
        raise BundleError(f"modules import each other: {' -> '.join([*within, path])}")
    if path in found:
        return
    text = stripped(read(path))
    module = _Module("")
    for one in _IMPORT.finditer(text):
        if not one["of"].startswith("."):
            packages[one[0]] = None
            continue
        other = posixpath.normpath(posixpath.join(posixpath.dirname(path), one["of"]))
        _add(read, other, found, packages, (*within, path))
        if missing := [name for name, _ in _named(one) if name not in found[other].exports]:
            raise BundleError(f"{path} imports {', '.join(missing)}, which {other} does not export")
        module.imports.append((one, other))
    body = _exported(_IMPORT.sub("", text), module)
    if left := _LEFT.search(body):
        raise BundleError(f"{path}: this is neither an import nor an export that can be bundled: {left[0]}")
    module.body = stripped(body)
    found[path] = module


def _named(one: "re.Match[str]") -> list[tuple[str, str]]:
    """Return the names that an import takes, each with what it is called there."""
    return [("default", one["one"])] if one["one"] else list(_pairs(one["some"] or ""))


def _seen_by_all(found: dict[str, _Module], given: Collection[str]) -> dict[str, str]:
    """Return the exported names that mean one thing in all modules, each with its module."""
    exports = [(name, own, path) for path, module in found.items() for name, own in module.exports.items()]
    times = Counter(name for name, _, _ in exports)
    return {
        name: path
        for name, own, path in exports
        if times[name] == 1 and name not in _OF_BROWSER and (name == own or name in given) and name != "default"
    }


def _taken(one: "re.Match[str]", other: str, number: int, seen: dict[str, str]) -> str:
    """Return the line that takes an import from a module that was added before, empty where it is seen anyway."""
    if one["all"]:
        return f"const {one['all']}=m{number};"
    pairs = [(name, own) for name, own in _named(one) if name != own or seen.get(name) != other]
    if not pairs:
        return ""
    return f"const{{{','.join(name if name == own else f'{name}:{own}' for name, own in pairs)}}}=m{number};"


def _exported(text: str, module: _Module) -> str:
    """Note a module's exports, and return its text without the word."""
    for one in _LIST.finditer(text):
        module.exports |= {name: own for own, name in _pairs(one["names"])}
    module.exports |= {one["name"]: one["name"] for one in _NAMED.finditer(text)}
    if (page := _DEFAULT.search(text)) is not None:
        module.exports["default"] = page["name"]
    return _DEFAULT.sub("", _NAMED.sub("", _LIST.sub("", text)))


def _pairs(names: str) -> Iterator[tuple[str, str]]:
    """Yield the names of a list such as `a, b as c`, each with its other name or itself."""
    for one in filter(None, (part.strip() for part in names.split(","))):
        name, _, other = one.partition(" as ")
        yield name, other or name


def _wrapped(lines: Sequence[str], exports: Mapping[str, str], shown: Sequence[str], number: int | None) -> str:
    """Return a module as the names of it that all modules see; with a `number` also as one value."""
    listed = exports if number is not None else dict(zip(shown, shown, strict=True))
    given = ",".join(name if name == own else f"{name}:{own}" for name, own in listed.items())
    body = "\n".join([*lines, f"return{{{given}}}"])
    value, names = f"(()=>{{\n{body}\n}})()", f"{{{','.join(shown)}}}"
    if number is None:
        return f"const{names}={value};"
    return f"const m{number}={value};" + (f"const{names}=m{number};" if shown else "")


def squeezed(text: str) -> str:
    """Return a script without the spaces that stand for nothing; its texts and patterns stay as they are."""
    parts: list[str] = []
    #: For each template literal around this place, how many braces are open within its `${`.
    braces: list[int] = []
    at = begin = 0
    while (special := _SPECIAL.search(text, at)) is not None:
        at, sign = special.start(), special[0]
        is_template = sign == "`" or (sign == "}" and braces and braces[-1] == 0)
        if sign in "{}" and not is_template:
            if braces:
                braces[-1] += 1 if sign == "{" else -1
            at += 1
            continue
        if sign == "}":
            braces.pop()
        end = _end_of_template(text, at + 1, braces) if is_template else _end_of_text(text, at, sign)
        parts += [_SPACE_IN_CODE.sub(r"\1", text[begin:at]), text[at:end]]
        at = begin = end
    return "".join([*parts, _SPACE_IN_CODE.sub(r"\1", text[begin:])])


def _end_of_template(text: str, at: int, braces: list[int]) -> int:
    """Return where a template literal ends or its next `${` has begun, which `braces` then counts."""
    while text[at] != "`":
        if text.startswith("${", at):
            braces.append(0)
            return at + 2
        at += 2 if text[at] == "\\" else 1
    return at + 1


def _end_of_text(text: str, at: int, sign: str) -> int:
    """Return where a string or a pattern ends that may begin with `sign`."""
    if sign == "/":
        before = text[:at].rstrip(" ")
        begins = not before or before[-1] in _BEFORE_REGEX or before.endswith("return")
        found = _REGEX.match(text, at) if begins else None
    else:
        found = _STRING.match(text, at)
    return found.end() if found else at + 1


def joined(sheets: Iterable[str]) -> str:
    """Return style sheets as one, without the spaces that stand for nothing."""
    return "".join(_SPACE_AFTER.sub(":", _SPACE_AROUND.sub(r"\1", stripped(sheet))) for sheet in sheets) + "\n"
