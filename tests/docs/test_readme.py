"""The README's lines are the ones that CI runs, and every command it names exists."""

import re
import tomllib
from pathlib import Path

import pytest

from membridge.cli.catalogue import COMMANDS
from membridge.cli.service import service_commands

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SHELL = re.findall(r"^```sh\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "deploy").rglob("*.md"))]
NAMES = {*COMMANDS, *service_commands()}


NAMES_OF_SCRIPTS = (
    "membridge", "cm-push", "cm-pull", "cm-status", "cm-doctor", "claude-mem-hook-pull", "claude-mem-hook-push",
    "claude-cleanup-safe",
)  # fmt: skip


def recipes() -> set[str]:
    return set(re.findall(r"^([a-z]+)(?: \*\w+)?:$", (ROOT / "justfile").read_text(encoding="utf-8"), re.MULTILINE))


@pytest.mark.parametrize("name", ["user", "readme"])
def test_ci_runs_the_readmes_lines(name: str) -> None:
    ran = re.search(rf"^{name}='(.+)'$", (ROOT / ".ci" / "run").read_text(encoding="utf-8"), re.MULTILINE)

    assert ran is not None
    assert f"{ran[1]}\n" in SHELL


def test_the_first_line_is_for_users_and_installs_what_runs_alone() -> None:
    first, second = [block.strip().split(" && ") for block in SHELL if block.startswith("python3 -m venv")]

    assert SHELL[0].strip() == " && ".join(first)
    assert first == [
        "python3 -m venv .venv", ".venv/bin/pip install -r requirements.lock", ".venv/bin/pip install --no-deps .",
        ".venv/bin/membridge demo",
    ]  # fmt: skip
    assert second == [
        "python3 -m venv .venv", ".venv/bin/pip install -r requirements-dev.lock", ".venv/bin/just setup",
        ".venv/bin/just test",
    ]  # fmt: skip


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_that_is_named_exists(page: Path) -> None:
    code = re.findall(r"```sh\n(.*?)```|`([^`\n]+)`", page.read_text(encoding="utf-8"), re.DOTALL)
    text = "\n".join(block or inline for block, inline in code)
    named = set(re.findall(r"(?<!--context)(?:^|/|\s)membridge ([a-z][a-z_-]+)", text))

    assert named - NAMES == set()
    assert set(re.findall(r"(?:^|/|\s)just ([a-z]+)", text)) - recipes() == set()


def test_the_short_names_are_installed() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]

    assert {name for name in NAMES_OF_SCRIPTS if name in README} == set(scripts)


@pytest.mark.parametrize("name", sorted(NAMES - {"push_sqlite", "pull_sqlite"}))
def test_the_readme_names_every_command(name: str) -> None:
    assert re.search(rf"`(membridge )?{name}\b", README)
