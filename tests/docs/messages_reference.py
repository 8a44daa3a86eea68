"""Writes docs/reference/messages.md, every error message of the source: `python -m tests.docs.messages_reference`.

It reads the syntax trees: each call of an error class has a message, and a remedy. A value of the run is shown by its
name, `{path}`. There are no line numbers, so the page changes only with a message.
"""

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from schemas.errors import TABLE, ErrorCode

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "messages.md"
PACKAGES = ("membridge", "services", "schemas")
#: Carries what another process said: that process has the message.
CARRIES = {"RemoteError"}

_HEAD = """# Messages

Every error that Membridge reports, by code. Generated from the source; a test compares it. A name in braces stands
for a value. The shell prints the message after `error:` and the remedy below it; `--json` and NATS carry both with the
code. Try again says whether the same request can succeed later: `yes`, `no`, `later` (after a pause), `after_reread`
(once the caller has read the present state) or `if_idempotent` (it may have been carried out already).
"""


@dataclass(frozen=True, slots=True)
class Kind:
    """An error class: its code, its remedy where none is given, and what its docstring says."""

    name: str
    code: ErrorCode
    remedy: str
    meaning: str


@dataclass(frozen=True, slots=True, order=True)
class Message:
    """What is said in one place: templates, with names in braces."""

    module: str
    text: str
    remedy: str
    code: ErrorCode


@cache
def trees() -> dict[str, ast.Module]:
    """Return each module's name and syntax tree."""
    return {
        str(file.relative_to(ROOT).with_suffix("")).replace("/", ".").removesuffix(".__init__"): ast.parse(
            file.read_text(encoding="utf-8")
        )
        for package in PACKAGES
        for file in sorted((ROOT / package).rglob("*.py"))
    }


def texts_of(tree: ast.Module) -> dict[str, str]:
    """Return the constants of a module that hold a text, by name."""
    return {
        line.targets[0].id: line.value.value
        for line in tree.body
        if isinstance(line, ast.Assign) and isinstance(line.targets[0], ast.Name) and line.targets[0].id.isupper()
        if isinstance(line.value, ast.Constant) and isinstance(line.value.value, str)
    }


@cache
def constants() -> dict[str, str]:
    """Return those of all modules, for what one imports from another."""
    return {name: text for tree in trees().values() for name, text in texts_of(tree).items()}


@cache
def kinds() -> dict[str, Kind]:
    """Return every class of error that has a code, by name."""
    classes = {
        node.name: node for tree in trees().values() for node in ast.walk(tree) if isinstance(node, ast.ClassDef)
    }
    found: dict[str, Kind] = {}

    def kind(name: str) -> Kind | None:
        if name in found or name not in classes:
            return found.get(name)
        node = classes[name]
        parents = [kind(base.id) for base in node.bases if isinstance(base, ast.Name)]
        above = next((parent for parent in parents if parent is not None), None)
        if above is None and name != "MembridgeError":
            return None
        code, remedy = (above.code, above.remedy) if above else (ErrorCode.INTERNAL, "")
        for line in node.body:
            target = line.target if isinstance(line, ast.AnnAssign) else getattr(line, "targets", [None])[0]
            value = getattr(line, "value", None)
            if isinstance(target, ast.Name) and target.id == "code" and isinstance(value, ast.Attribute):
                code = ErrorCode[value.attr]
            if isinstance(target, ast.Name) and target.id == "default_remedy" and value is not None:
                remedy = next(templates(value, constants()), "")
        found[name] = Kind(name, code, remedy, (ast.get_docstring(node) or "").partition("\n")[0])
        return found[name]

    for name in classes:
        kind(name)
    return found


def messages() -> list[Message]:
    """Return every message of the source, in the order of the page."""
    return sorted({message for module, tree in trees().items() for message in _of(module, tree)})


def _of(module: str, tree: ast.Module) -> Iterator[Message]:
    known = constants() | texts_of(tree)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not node.args or isinstance(node.args[0], ast.Starred):
            continue
        kind = kinds().get(node.func.id if isinstance(node.func, ast.Name) else "")
        if kind is None or kind.name in CARRIES:
            continue
        given = next((keyword.value for keyword in node.keywords if keyword.arg == "remedy"), None)
        around = [one for one in functions if one.lineno <= node.lineno <= (one.end_lineno or 0)]
        if isinstance(given, ast.Name) and around:
            given = _assigned(around[-1], given.id) or given
        remedies = [kind.remedy] if given is None else list(templates(given, known)) or [f"{{{_name(given)}}}"]
        for text in templates(node.args[0], known):
            for remedy in remedies:
                yield Message(module, text, remedy, kind.code)


def _assigned(function: ast.AST, name: str) -> ast.expr | None:
    """Return what a function assigns to `name`, if it does so once."""
    values = [
        node.value
        for node in ast.walk(function)
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == name
    ]
    return values[0] if len(values) == 1 else None


def templates(value: ast.expr, known: Mapping[str, str]) -> Iterator[str]:
    """Yield what an expression may say: one text for each of its branches, nothing where it is built elsewhere.

    `known` are the constants that it may name.
    """
    match value:
        case ast.Constant(value=str() as text):
            yield text
        case ast.JoinedStr():
            yield "".join(_piece(piece) for piece in value.values)
        case ast.Name(id=name) | ast.Attribute(attr=name) if name in known:
            yield known[name]
        case ast.IfExp():
            yield from templates(value.body, known)
            yield from templates(value.orelse, known)
        case ast.BinOp(op=ast.Add()):
            for left in templates(value.left, known):
                for right in templates(value.right, known):
                    yield left + right


def _piece(piece: ast.expr) -> str:
    if isinstance(piece, ast.Constant):
        return str(piece.value)
    assert isinstance(piece, ast.FormattedValue)
    return f"{{{_name(piece.value)}}}"


def _name(value: ast.expr) -> str:
    """Return what to call a value that is filled in: the last name in it."""
    match value:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name.strip("_")
        case (
            ast.Call(func=ast.Attribute(attr="join"), args=[inner])
            | ast.Call(func=ast.Attribute(attr="format", value=inner))
        ):
            return _name(inner)
        case ast.Call(args=[ast.Name() | ast.Attribute() | ast.Call() as inner, *_]):
            return _name(inner)
        case ast.Call(func=inner) | ast.Subscript(value=inner) | ast.Starred(value=inner) | ast.Await(value=inner):
            return _name(inner)
        case ast.ListComp() | ast.GeneratorExp() | ast.SetComp():
            return _name(value.generators[0].iter)
        case _:
            names = [_name(inner) for inner in ast.iter_child_nodes(value) if isinstance(inner, ast.expr)]
            return next((name for name in names if name != "..."), "...")


def render() -> str:
    """Return the page."""
    every = messages()
    lines = [_HEAD]
    for code, row in TABLE.items():
        lines += [f"## `{code}`\n", f"NATS and HTTP {row.nats}, exit code {row.exit}, try again: {row.retry}.\n"]
        lines += [
            f"- {kind.name}: {_cell(kind.meaning)}"
            for kind in sorted(kinds().values(), key=_by_name)
            if kind.code is code
        ]
        of_code = [message for message in every if message.code is code]
        if of_code:
            lines += ["\n| where | message | remedy |\n|---|---|---|"]
            lines += [f"| `{one.module}` | {_cell(one.text)} | {_cell(one.remedy)} |" for one in of_code]
        lines.append("")
    return "\n".join(lines)


def _by_name(kind: Kind) -> str:
    return kind.name


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", r"\|").replace("<", r"\<").strip()


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
