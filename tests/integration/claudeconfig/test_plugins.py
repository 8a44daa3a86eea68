"""Plugins travel as intent: Claude Code's own commands bring them, and what did not come is offered again."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integration.claudeconfig.conftest import Machine, Machines

MARKET: dict[str, Any] = {"source": {"source": "github", "repo": "owner/market", "ref": "v1"}}
#: A `claude` that writes settings.json as the real one does, and notes how it was called.
CLAUDE = """#!{python}
import json, pathlib, sys
config = pathlib.Path(sys.argv[0]).parent
(config / "calls").open("a").write(" ".join(sys.argv[1:]) + "\\n")
if (config / "fails").exists() and (config / "fails").read_text() in " ".join(sys.argv[1:]):
    sys.exit(1)
target = pathlib.Path("settings.json")
settings = json.loads(target.read_text()) if target.exists() else {{}}
if sys.argv[2:4] == ["marketplace", "add"]:
    repo, _, ref = sys.argv[4].partition("#")
    market = {{"source": {{"source": "github", "repo": repo, "ref": ref}}}}
    settings.setdefault("extraKnownMarketplaces", {{}})[repo.split("/")[1]] = market
else:
    settings.setdefault("enabledPlugins", {{}})[sys.argv[3]] = sys.argv[2] == "install"
target.write_text(json.dumps(settings))
"""


@pytest.fixture
def claude(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put that `claude` in PATH; return its folder."""
    folder = tmp_path / "claude"
    folder.mkdir()
    program = folder / "claude"
    program.write_text(CLAUDE.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    return folder


def calls(folder: Path) -> list[str]:
    noted = folder / "calls"
    return noted.read_text().splitlines() if noted.exists() else []


def wants(machine: Machine, **enabled: bool) -> None:
    machine.settings({
        "enabledPlugins": {"local@skills-dir": True, **{f"{name}@market": on for name, on in enabled.items()}},
        "extraKnownMarketplaces": {
            "market": MARKET, "mine": {"source": {"source": "directory", "path": str(machine.place.home)}},
        },
    })  # fmt: skip


async def test_plugins_are_installed_by_claude_code_after_a_yes(machines: Machines, claude: Path) -> None:
    a, b = await machines.make("a"), await machines.make("b")
    wants(a, one=True, two=False)
    await a.push()
    seen = await a.look()
    assert {one.key for one in seen.ours.refused} == {
        "enabledPlugins.local@skills-dir", "extraKnownMarketplaces.mine",
    }  # fmt: skip

    declined = await b.pull(programs=False)
    assert (declined.commands, calls(claude), b.tree()) == ([], [], {})
    taken = await b.pull()
    assert taken.ran
    assert calls(claude) == ["plugin marketplace add owner/market#v1", "plugin install one@market"]
    assert b.read_settings() == {
        "extraKnownMarketplaces": {"market": MARKET}, "enabledPlugins": {"one@market": True},
    }  # fmt: skip
    # A plugin that is off elsewhere and not here needs nothing; what is here is common now.
    assert (await b.pull()).commands == []
    assert await b.push() is None
    wants(a, one=False, two=False)
    await a.push()
    assert (await b.pull()).commands == ["claude plugin disable one@market"]
    assert b.read_settings()["enabledPlugins"] == {"one@market": False}


async def test_a_plugin_that_did_not_come_is_offered_again(machines: Machines, claude: Path) -> None:
    a, b = await machines.make("a"), await machines.make("b")
    wants(a, one=True, two=True)
    await a.push()
    (claude / "fails").write_text("two@market")
    assert not (await b.pull()).ran
    assert b.read_settings()["enabledPlugins"] == {"one@market": True}
    # It is no deletion of b.
    assert await b.push(delete=True) is None
    (claude / "fails").unlink()
    again = await b.pull()
    assert (again.ran, again.commands) == (True, ["claude plugin install two@market"])
    assert json.loads(b.text("settings.json"))["enabledPlugins"] == {"one@market": True, "two@market": True}


async def test_without_claude_the_commands_are_told(
    machines: Machines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = await machines.make("a"), await machines.make("b")
    wants(a, one=True)
    await a.push()
    monkeypatch.setenv("PATH", str(tmp_path))
    taken = await b.pull()
    assert (taken.ran, len(taken.commands)) == (False, 2)
    assert b.tree() == {}
    assert (await b.pull()).commands == taken.commands
