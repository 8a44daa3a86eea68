"""Own modules and style sheets of a page as one file each, without comments: a browser loads two files, not forty.

It reads the JavaScript that the console is written in, and refuses what it does not know: imports stand at the start of
a line and name what they take, exports are `export const`, `function`, `class`, `default function` or one list. Lines
lose what they are indented by, so a template literal may not depend on that.
"""

import posixpath
import re
from collections.abc import Callable, Iterable, Iterator
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
_COMMENT = re.compile(r"^\s*(?://.*|/\*(?:[^*]|\*(?!/))*\*/\s*)$", re.MULTILINE)


class BundleError(ValueError):
    """A module that cannot be put together with the others."""


@dataclass(slots=True)
class _Module:
    body: str
    exports: dict[str, str] = field(default_factory=dict[str, str])


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
    parts = [*packages, *(_wrapped(module, numbers[path]) for path, module in found.items())]
    return "\n".join(parts) + "\n"


def _add(
    read: Callable[[str], str], path: str, found: dict[str, _Module], packages: dict[str, None], within: tuple[str, ...]
) -> None:
    """Add a module after those that it imports."""
    if path in within:
        raise BundleError(f"modules import each other: {' -> '.join([*within, path])}")
    if path in found:
        return
    text = stripped(read(path))
    taken: list[str] = []
    for one in _IMPORT.finditer(text):
        if not one["of"].startswith("."):
            packages[one[0]] = None
            continue
        other = posixpath.normpath(posixpath.join(posixpath.dirname(path), one["of"]))
        _add(read, other, found, packages, (*within, path))
        taken.append(_taken(one, path, other, found))
    module = _Module("")
    body = _exported(_IMPORT.sub("", text), module)
    if left := _LEFT.search(body):
        raise BundleError(f"{path}: this is neither an import nor an export that can be bundled: {left[0]}")
    module.body = stripped("\n".join([*taken, body]))
    found[path] = module


def _taken(one: "re.Match[str]", path: str, other: str, found: dict[str, _Module]) -> str:
    """Return the line that takes an import from a module that was added before."""
    target = f"m{list(found).index(other)}"
    if one["all"]:
        return f"const {one['all']}={target};"
    pairs = [("default", one["one"])] if one["one"] else list(_pairs(one["some"]))
    if missing := [name for name, _ in pairs if name not in found[other].exports]:
        raise BundleError(f"{path} imports {', '.join(missing)}, which {other} does not export")
    return f"const{{{','.join(name if name == own else f'{name}:{own}' for name, own in pairs)}}}={target};"


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


def _wrapped(module: _Module, number: int) -> str:
    given = ",".join(name if name == own else f"{name}:{own}" for name, own in module.exports.items())
    return f"const m{number}=(()=>{{\n{module.body}\nreturn{{{given}}}\n}})();"


def joined(sheets: Iterable[str]) -> str:
    """Return style sheets as one, without the spaces that stand for nothing."""
    return "".join(_SPACE_AFTER.sub(":", _SPACE_AROUND.sub(r"\1", stripped(sheet))) for sheet in sheets) + "\n"
