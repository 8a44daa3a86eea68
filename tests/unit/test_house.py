"""The house rules that no other tool checks: size, names, places, and what a tracked file may not say."""

import ast
import re
import statistics
import subprocess
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("schemas", "membridge", "services", "hooks")

#: Lines of a module: the most any may have, what one in ten may exceed, and what half of them may.
MOST, NINE_IN_TEN, HALF = 500, 350, 150
JUSTFILE_LINES = 78

TOP_LEVEL = {
    "membridge", "services", "schemas", "hooks", "deploy", "tests", "docs", "nats-server.conf", "pyproject.toml",
    "justfile", "README.md", "README.uk.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "requirements.lock",
    "requirements-dev.lock", "sqlite_minio_sync.py",
}  # fmt: skip
DOT_FILES = {".ci", ".claude-plugin", ".editorconfig", ".gitattributes", ".gitignore"}

NAMES_OF_NOTHING = {
    "utils",
    "util",
    "helpers",
    "helper",
    "common",
    "misc",
    "manager",
    "managers",
    "base",
    "impl",
    "core",
}
WORDS_OF_NOTHING = re.compile(r"(Manager|Helper|Base|Abstract|Impl)$|^(Base|Abstract)[A-Z]")
#: Roots that are bases for msgspec's sake: a struct needs one to share its fields.
NAMED_FOR_MSGSPEC = {"EventBase"}

#: A path that only one machine has, or the address of a package registry.
MACHINE = re.compile(
    r"/home/(?!you\b|user\b|pi\b|me\b)\w+|/root/|/Users/\w+/"
    r"|(?:registry\.npm" + r"js|pypi" + r"\.org|files\.python" + r"hosted|npm" + r"js\.com)"
)


@cache
def tracked() -> tuple[Path, ...]:
    """Return what git tracks or would track."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    files = tuple(ROOT / name for name in names if name and (ROOT / name).is_file())
    assert len(files) > 50, "git lists too little: is this a clone?"
    return files


def modules() -> list[Path]:
    return [file for file in tracked() if file.suffix == ".py" and file.relative_to(ROOT).parts[0] in PACKAGES]


def modules_of_tests() -> list[Path]:
    return [file for file in tracked() if file.suffix == ".py" and file.relative_to(ROOT).parts[0] == "tests"]


def text(file: Path) -> str:
    return file.read_text(encoding="utf-8")


def lines(file: Path) -> int:
    return len(text(file).splitlines())


def at(file: Path, what: object) -> str:
    return f"{file.relative_to(ROOT)}: {what}"


def dependencies(extra: str | None = None) -> set[str]:
    project = tomllib.loads(text(ROOT / "pyproject.toml"))["project"]
    wanted = project["optional-dependencies"][extra] if extra else project["dependencies"]
    return {re.split(r"[\[<>=!~ ;]", requirement)[0] for requirement in wanted}


def test_no_module_is_two_ideas_long() -> None:
    assert [at(file, lines(file)) for file in [*modules(), *modules_of_tests()] if lines(file) > MOST] == []


def test_modules_are_short_as_a_rule() -> None:
    sizes = sorted(lines(file) for file in modules() if file.name != "__init__.py")

    assert statistics.median(sizes) <= HALF
    assert statistics.quantiles(sizes, n=10)[-1] <= NINE_IN_TEN


def test_every_module_and_class_has_a_name_that_says_something() -> None:
    nameless = [at(file, "module") for file in modules() if NAMES_OF_NOTHING & {file.stem, file.parent.name}]
    nameless += [
        at(file, node.name)
        for file in modules()
        for node in ast.walk(ast.parse(text(file)))
        if isinstance(node, ast.ClassDef) and WORDS_OF_NOTHING.search(node.name) and node.name not in NAMED_FOR_MSGSPEC
    ]

    assert nameless == []


def test_every_module_says_what_it_is_for() -> None:
    silent = [at(file, "no docstring") for file in modules() if not ast.get_docstring(ast.parse(text(file)))]

    assert silent == []


def test_no_test_sleeps() -> None:
    sleeping = [
        at(file, f"line {node.lineno}")
        for file in modules_of_tests()
        # A benchmark and a soak watch other processes, which tell nobody when they are done; a fault lasts a while.
        if not {"bench", "soak", "scale"} & set(file.parts) and file.name != "pace.py"
        for node in ast.walk(ast.parse(text(file)))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in {"time.sleep", "asyncio.sleep", "sleep"}
        and not (node.args and ast.unparse(node.args[0]) == "0")
    ]

    assert sleeping == []


def test_no_test_is_skipped() -> None:
    skipping = re.compile(r"\bpytest\.(skip|importorskip)\(|mark\.(skip|skipif)\b")

    assert [
        at(file, "skips") for file in modules_of_tests() if skipping.search(text(file)) and file != Path(__file__)
    ] == []


def test_nothing_is_left_undone() -> None:
    undone = re.compile(r"\b(TODO|FIXME|XXX|NotImplementedError)\b")

    assert [at(file, found[0]) for file in modules() if (found := undone.search(text(file)))] == []


def test_the_top_level_is_what_the_design_says() -> None:
    top = {file.relative_to(ROOT).parts[0] for file in tracked()}

    assert {name for name in top if not name.startswith(".")} == TOP_LEVEL
    assert {name for name in top if name.startswith(".")} == DOT_FILES


def test_the_justfile_is_a_page() -> None:
    assert lines(ROOT / "justfile") <= JUSTFILE_LINES


def test_no_tracked_file_names_a_machine_or_a_registry() -> None:
    named = [
        at(file, found[0])
        for file in tracked()
        if file.suffix not in {".db", ".png"} and file != Path(__file__) and (found := MACHINE.search(text(file)))
    ]

    assert named == []


def locked(file: str) -> dict[str, str]:
    """Return what a lock file says of each package: its version, or those by platform, markers and hashes."""
    found: dict[str, str] = {}
    for entry in filter(None, re.split(r"\n(?=[a-z])", text(ROOT / file))):
        name = entry.partition("==")[0]
        found[name] = found.get(name, "") + entry
    return found


@pytest.mark.parametrize("file", ["requirements.lock", "requirements-dev.lock"])
def test_a_lock_file_has_exact_versions_with_hashes_and_no_address(file: str) -> None:
    lock = text(ROOT / file)
    entries = re.findall(r"^(\S+?)==(\S+).*\\\n(    --hash=sha256:[0-9a-f]{64})", lock, re.MULTILINE)

    assert not re.search(r"://| @ |^\s*-(?!-hash)|--(?!hash)\w*(index|url|links|host)", lock, re.MULTILINE)
    assert len(entries) == len(re.findall(r"^[a-z]", lock, re.MULTILINE)) > 40
    assert {name for name, _, _ in entries} == locked(file).keys()


def test_what_runs_is_a_part_of_what_develops_with_the_same_versions() -> None:
    runs, develops = locked("requirements.lock"), locked("requirements-dev.lock")

    assert {name: develops.get(name, "").strip() for name in runs} == {
        name: entry.strip() for name, entry in runs.items()
    }
    assert dependencies() <= runs.keys(), "run `just lock`"
    assert dependencies("dev") <= develops.keys(), "run `just lock`"
    assert dependencies("dev") & runs.keys() == set()


@pytest.mark.parametrize("extra", [None, "dev"], ids=["runtime", "dev"])
def test_every_dependency_is_accounted_for(extra: str | None) -> None:
    page = text(ROOT / "docs" / "dependencies.md")

    assert [name for name in sorted(dependencies(extra)) if f"| `{name}` |" not in page] == []
