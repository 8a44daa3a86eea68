"""What the hooks cost a session: the real Claude CLI with an empty plugin, with hooks that do nothing, and with ours.

    python -m tests.bench.hooks [--rounds 25]   prints, and writes docs/benchmarks-hooks.md

Each round runs every kind once, so that what else the machine does meets all of them alike.
"""

import argparse
import asyncio
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from membridge.claudecode.plugin import MANIFEST
from tests.bench.table import machine
from tests.fixtures.hook_daemon import HookDaemon, hook_daemon
from tests.real.claude_session import Claude
from tests.real.fetch import ClaudeCode, fetch_claude
from tests.real.messages_api import MessagesApi, messages_api

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks-hooks.md"
#: Milliseconds that the hooks may add to a session start, and to any other event.
MOST_START, MOST_EVENT = 100.0, 5.0
#: Runs of a hook's process for one of a session.
PROCESSES = 8
#: Hooks of a session that wait for their end, but for the start: UserPromptSubmit and Stop.
WAITING = 2
EVENT = json.dumps({"session_id": "0" * 36, "hook_event_name": "Stop", "cwd": "/work", "last": "x" * 300}).encode()

KINDS = {
    "empty": "an empty plugin",
    "module": "a module that does nothing",
    "asking": "the module alone",
    "start": "the module, and the hook of session start",
    "events": "the hooks of all other events",
    "idle": "a module that does nothing, all hooks as `/bin/true`",
    "ours": "the plugin",
}

INTRODUCTION = """\
Written by `python -m tests.bench.hooks` on {day}; load average {load} before and after{nice}.

Sessions are `claude -p` of Claude Code {version}, each kind in a home of its own, with a stand-in of the model on
loopback that answers at once. {rounds} rounds run each kind once; a time is the median (p50) of the whole session, and
what one kind takes more than another the median of the differences in each round. The daemon is a stand-in too: its
memory is fresh, it fetches nothing.
"""
SHELL = """\
A shell that does nothing takes {idle:.1f} ms. Claude Code itself takes {more:.0f} ms more for a hook that it waits for,
whatever the hook does.
"""
MODULE = """\
A session loads modules once for all plugins. Claude Code runs the hooks of all plugins beside each other: beside those
of claude-mem, which take 400 ms, the hook of a session start costs nothing, and what it adds is what the module adds.
"""


def only(plugin: Path, *events: str, module: bool) -> None:
    """Leave these hooks of the plugin, and its module if that is wanted."""
    file = plugin / "hooks" / "hooks.json"
    content = json.loads(file.read_text("utf-8"))
    content["hooks"] = {event: content["hooks"][event] for event in events}
    if not module:
        del content["modules"]
    file.write_text(json.dumps(content), encoding="utf-8")


def without_effect(plugin: Path) -> None:
    """Make the plugin's hooks and its module do nothing."""
    file = plugin / "hooks" / "hooks.json"
    content = json.loads(file.read_text("utf-8"))
    for (group,) in content["hooks"].values():
        for hook in group["hooks"]:
            hook.update(command="/bin/true", args=[])
    file.write_text(json.dumps(content), encoding="utf-8")
    (plugin / "hooks" / "register.js").write_text("export const register = () => {}\n", encoding="utf-8")


def kinds(folder: Path, state: Path, api: MessagesApi) -> dict[str, Claude]:
    """Make a home for each kind of plugin."""
    found: dict[str, Claude] = {}
    for name in KINDS:
        found[name] = Claude(fetch_claude(), folder / name, api)
        found[name].work.mkdir(parents=True)
        found[name].install_hooks(state, wait_seconds=5.0)
        plugin = folder / name / ".claude" / "skills" / "membridge"
        match name:
            case "empty":
                manifest = (plugin / MANIFEST).read_bytes()
                shutil.rmtree(plugin)
                (plugin / MANIFEST).parent.mkdir(parents=True)
                (plugin / MANIFEST).write_bytes(manifest)
            case "idle":
                without_effect(plugin)
            case "module":
                without_effect(plugin)
                only(plugin, module=True)
            case "asking":
                only(plugin, module=True)
            case "start":
                only(plugin, "SessionStart", module=True)
            case "events":
                only(plugin, "UserPromptSubmit", "Stop", "SessionEnd", module=False)
            case _:
                pass
    return found


def processes(scripts: Path, rounds: int) -> tuple[list[float], list[float]]:
    """Return the milliseconds of a shell that does nothing, and of `event.sh`, in turns."""

    def run(*command: str) -> float:
        began = time.perf_counter()
        subprocess.run(command, input=EVENT, capture_output=True, check=True)
        return (time.perf_counter() - began) * 1e3

    idle, event = list[float](), list[float]()
    for _ in range(rounds):
        idle.append(run("/bin/sh", "-c", ":"))
        event.append(run("/bin/sh", str(scripts / "event.sh"), "Stop"))
    return idle, event


@dataclass(slots=True)
class Times:
    """Milliseconds of sessions of one kind: from start to end, and of the processor, all their processes together."""

    wall: list[float] = field(default_factory=list[float])
    processor: list[float] = field(default_factory=list[float])


async def sessions(claudes: dict[str, Claude], daemon: HookDaemon, rounds: int) -> dict[str, Times]:
    """Return the times of each kind's sessions."""
    found = {name: Times() for name in claudes}
    for number in range(rounds + 1):
        for name, claude in claudes.items():
            daemon.beat()
            before = _spent()
            session = await claude.session("hello")
            assert (session.code, session.output) == (0, "the stand-in speaks\n"), session
            assert (str(daemon.context) in session.sent) is (name in {"asking", "start", "ours"})
            # The first session of a home writes its files.
            if number:
                found[name].wall.append(session.seconds * 1e3)
                found[name].processor.append((_spent() - before) * 1e3)
    return found


def _spent() -> float:
    of = resource.getrusage(resource.RUSAGE_CHILDREN)
    return of.ru_utime + of.ru_stime


async def measure(rounds: int) -> str:
    """Measure and return the page."""
    loads = [os.getloadavg()[0]]
    with tempfile.TemporaryDirectory(prefix="mb-", dir="/tmp") as text:
        folder, state = Path(text), Path(text) / "s"
        async with messages_api() as api, hook_daemon(state) as daemon:
            claudes = await asyncio.to_thread(kinds, folder, state, api)
            found = await sessions(claudes, daemon, rounds)
            scripts = folder / "ours" / ".claude" / "skills" / "membridge"
            idle, event = await asyncio.to_thread(processes, scripts, rounds * PROCESSES)
    loads.append(os.getloadavg()[0])
    return _page(found, idle, event, rounds, loads)


def _page(found: dict[str, Times], idle: list[float], event: list[float], rounds: int, loads: Sequence[float]) -> str:
    p50 = {name: statistics.median(times.wall) for name, times in found.items()}
    spent = {name: statistics.median(times.processor) for name, times in found.items()}
    start = _more(found, "start", "empty")
    events = _more(found, "events", "empty") / WAITING
    process = statistics.median(event)
    rows = [
        ("an event: the process of its hook", f"{process:.1f} ms", f"{MOST_EVENT:.0f} ms", _met(process <= MOST_EVENT)),
        ("a session start, over an empty plugin", f"{start:.0f} ms", f"{MOST_START:.0f} ms", _met(start <= MOST_START)),
        ("of that: Claude Code loads a module", f"{_more(found, 'module', 'empty'):.0f} ms", "", ""),
        ("of that: the module asks the daemon", f"{_more(found, 'asking', 'module'):.0f} ms", "", ""),
        ("of that: Claude Code runs a hook", f"{_more(found, 'start', 'asking'):.0f} ms", "", ""),
    ]
    more = [
        (
            said, f"{p50[name]:.0f} ms", f"{_more(found, name, 'empty'):.0f} ms", f"{min(found[name].wall):.0f} ms",
            f"{spent[name]:.0f} ms", f"{spent[name] - spent['empty']:.0f} ms",
        )
        for name, said in KINDS.items()
    ]  # fmt: skip
    parts = (
        "# Benchmarks of the hooks\n",
        INTRODUCTION.format(
            day=datetime.now(UTC).date(), load=", ".join(f"{load:.1f}" for load in loads),
            version=ClaudeCode.NEWEST.value, rounds=rounds, nice=_preference(),
        ),
        _table(("the hooks add, p50", "Membridge", "goal", "met"), rows),
        SHELL.format(idle=statistics.median(idle), more=events - process),
        "## Whole sessions\n",
        _table(
            ("a session with", "p50", "more than empty", "fastest", "processor, p50", "more than empty"), more
        ),
        MODULE,
        "## Machine\n",
        machine(),
    )  # fmt: skip
    return "\n".join(parts)


def _more(found: Mapping[str, Times], name: str, other: str) -> float:
    """Return what sessions of one kind take more than those of another: each against that of the same round."""
    pairs = zip(found[name].wall, found[other].wall, strict=True)
    return statistics.median(one - than for one, than in pairs)


def _preference() -> str:
    """Return whether the scheduler prefers this terminal's programs to the others, which make the load."""
    file = Path("/proc/self/autogroup")
    found = re.search(r"nice (-\d+)", file.read_text("utf-8")) if file.is_file() else None
    return f" (these programs were scheduled before others: autogroup nice {found[1]})" if found else ""


def _met(met: bool) -> str:
    return "yes" if met else "**no**"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.hooks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=25)
    page = asyncio.run(measure(parser.parse_args().rounds))
    sys.stdout.write(page)
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
