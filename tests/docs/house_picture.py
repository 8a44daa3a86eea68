"""The picture of the house: its packages by layer, as the import contracts have them, a line each.

The layers are read from `pyproject.toml`, the lines from the first line of each package's docstring. Run as a program
it writes the picture into the pages that show it: `python -m tests.docs.house_picture`.
"""

import ast
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = (ROOT / "docs" / "explain" / "design.md", ROOT / "docs" / "development.md")

_SPOT = re.compile(
    r"(<!-- the house: python -m tests\.docs\.house_picture -->\n).*?(<!-- end of the house -->)", re.DOTALL
)
_INDENT, _NAME = "  ", 14
_RULE = f"{_INDENT}{'-' * _NAME}"


def render() -> str:
    """Return the picture: every layer may import the layers below it, and none above."""
    linter = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    contracts = [contract for contract in linter["contracts"] if contract["type"] == "layers"]
    roots = [name for contract in contracts if "containers" not in contract for name in contract["layers"]]
    inside = {container: contract["layers"] for contract in contracts for container in contract.get("containers", [])}
    lines: list[str] = []
    for root in (*roots, *sorted(set(linter["root_packages"]) - set(roots))):
        lines += [] if root in roots else ["", "by itself:"]
        lines.append(f"{root + '/':{_NAME + len(_INDENT)}}  {purpose(root)}")
        for number, layer in enumerate(inside.get(root, [])):
            lines += [_RULE] if number else []
            lines += [f"{_INDENT}{name:{_NAME}}  {purpose(f'{root}.{name}')}" for name in re.findall(r"\w+", layer)]
    return "\n".join(lines)


def purpose(module: str) -> str:
    """Return the first line of the module's docstring."""
    return docstring(module).splitlines()[0]


def docstring(module: str) -> str:
    """Return the docstring of a package or module of the repository."""
    place = ROOT / module.replace(".", "/")
    file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
    return ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""


def packages() -> list[str]:
    """Return every package of the repository that is not a test."""
    linter = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    return sorted(
        str(file.parent.relative_to(ROOT)).replace("/", ".")
        for root in linter["root_packages"]
        for file in (ROOT / root).rglob("__init__.py")
    )


def written_into(page: str) -> str:
    """Return the page with the picture in its place."""
    return _SPOT.sub(lambda found: f"{found[1]}```\n{render()}\n```\n{found[2]}", page)


if __name__ == "__main__":
    for path in PAGES:
        path.write_text(written_into(path.read_text(encoding="utf-8")), encoding="utf-8")
