"""Which processes of Claude Code, claude-mem and MCP servers nobody uses any more.

A session that ends badly leaves its MCP servers, a worker that is killed leaves its chroma. They never end by
themselves. The parent alone does not tell them: claude-mem's worker, and the chroma that it uses, have none either.
What tells them is that the other end of their standard input is closed. Whatever leaves a doubt is kept.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePath

from membridge.system.processes import Opened, Process

#: Names of processes that take in those without a parent, beside process 1.
REAPERS = frozenset({"systemd", "init", "launchd", "tini", "dumb-init", "docker-init", "catatonit"})
_MCP = re.compile(r"(?:^|[-_.@/])mcp(?:[-_.@/]|$)", re.IGNORECASE)
_WORDS = 8


class Kind(StrEnum):
    """What a process is of."""

    CLAUDE = "claude"
    CHROMA = "chroma"
    BUN = "bun"
    MCP = "mcp"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A process of one of the kinds: an orphan, or kept and why."""

    process: Process
    kind: Kind
    kept: str = ""


@dataclass(frozen=True, slots=True)
class Machine:
    """What is looked at: all processes, open files, the peer of each unix socket, and this process itself.

    `named` are the processes that claude-mem's own files name.
    """

    processes: Mapping[int, Process]
    opened: Iterable[Opened]
    peers: Mapping[int, int]
    own: int
    named: Collection[int] = ()


def kind_of(command: tuple[str, ...]) -> Kind | None:
    """Return what a command line is of."""
    words = [word for part in command[:_WORDS] for word in part.split()][:_WORDS]
    names = [PurePath(word).name for word in words]
    if not names:
        return None
    if names[0] == "claude" or any(word.endswith("claude-code/cli.js") for word in words):
        return Kind.CLAUDE
    if any(name == "chroma" or name.startswith("chroma-mcp") for name in names):
        return Kind.CHROMA
    if names[0] == "bun" and any("claude" in word for word in words[1:]):
        return Kind.BUN
    # An option may name a file for MCP, as `claude --mcp-config`; a program that is one has it in its own name.
    return Kind.MCP if any(_MCP.search(word) for word in words if not word.startswith("-")) else None


def verdicts(machine: Machine, *, youngest: float) -> list[Verdict]:
    """Return the processes of the user that are of a kind, oldest first. Those younger than `youngest` are kept."""
    processes = machine.processes
    me = processes[machine.own]
    lines = {pid: _line(pid, processes) for pid in processes}
    named = {pid for pid in processes if {pid, *lines[pid]} & {*machine.named}}
    of_kind = {
        pid: kind
        for pid, process in processes.items()
        if process.user == me.user and (kind := kind_of(process.command)) is not None
    }
    ends = _Ends(machine)
    kept: dict[int, str] = {}
    # Ancestors come first: what one that is in use started is in use.
    for pid in sorted(of_kind, key=lambda one: len(lines[one])):
        above = [one for one in lines[pid] if one in of_kind]
        top = above[-1] if above else pid
        # The tree that would go together.
        tree = {one for one in of_kind if one == top or top in lines[one]}
        kept[pid] = (
            _kept(processes[pid], me, youngest)
            or ("it is where this program runs" if pid == machine.own or pid in lines[machine.own] else "")
            or ("claude-mem uses it" if pid in named else "")
            or next((f"process {one} is in use and started it" for one in above if kept[one]), "")
            or _has_parent(processes[top], processes)
            or ends.used(pid, tree)
        )
    found = [Verdict(processes[pid], kind, kept[pid]) for pid, kind in of_kind.items()]
    return sorted(found, key=lambda verdict: verdict.process.started)


def _line(pid: int, processes: Mapping[int, Process]) -> list[int]:
    """Return the ancestors, the parent first."""
    line: list[int] = []
    while (process := processes.get(pid)) is not None and process.parent not in line and process.parent != 0:
        pid = process.parent
        line.append(pid)
    return line


def _kept(process: Process, me: Process, youngest: float) -> str:
    if process.container != me.container or process.namespace != me.namespace:
        return "it is in a container"
    if process.service and process.service != me.service:
        return f"it belongs to {process.service}"
    return f"it is younger than {youngest:.0f} s" if process.age < youngest else ""


def _has_parent(top: Process, processes: Mapping[int, Process]) -> str:
    parent = processes.get(top.parent)
    if top.parent in {0, 1} or (parent is not None and parent.name in REAPERS):
        return ""
    return f"{parent.name if parent else 'a process'} ({top.parent}) started it"


class _Ends:
    """What is at the other end of a process's standard input and output."""

    def __init__(self, machine: Machine) -> None:
        self._files = {(one.process, one.number): one for one in machine.opened}
        self._holders: dict[str, set[tuple[int, bool]]] = {}
        for one in machine.opened:
            self._holders.setdefault(one.target, set()).add((one.process, one.writes))
        self._peers = machine.peers

    def used(self, pid: int, tree: set[int]) -> str:
        """Return who or what uses the process, beside those of its `tree`; empty if nobody can any more."""
        standard_in, standard_out = self._files.get((pid, 0)), self._files.get((pid, 1))
        if standard_in is None or standard_out is None:
            return "its standard input is closed: it was made to run alone"
        return self._alive(standard_in, tree) or self._alive(standard_out, tree)

    def _alive(self, file: Opened, tree: set[int]) -> str:
        target = file.target
        if target.startswith("pipe:"):
            # Of input the writers count, of output the readers.
            others = {
                pid for pid, writes in self._holders[target] if pid not in tree and (file.number == 1) is not writes
            }
            return f"process {min(others)} uses it" if others else ""
        if target.startswith("socket:"):
            peer = self._peers.get(int(target[8:-1]))
            if peer is None:
                return "it serves a network"
            if peer == 0:
                return ""
            holders = {pid for pid, _ in self._holders.get(f"socket:[{peer}]", set())}
            return "" if holders and holders <= tree else f"process {min(holders - tree, default=0)} uses it"
        if target.startswith("/dev/pts/") and target.endswith(" (deleted)"):
            return ""
        return f"it reads or writes {target}"
