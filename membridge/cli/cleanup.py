"""`claude-cleanup-safe`: lists what Claude Code and claude-mem left running and nobody uses, and stops it with --kill.

A program of its own beside `membridge`: it works without settings, daemon and server.
"""

import json
import os
import select
import signal
import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import cast

import click

from membridge.aio.deadline import Deadline
from membridge.claudecode.orphans import Machine, Verdict, verdicts
from membridge.cli import tables, units
from membridge.system import processes, unix_sockets
from membridge.system.processes import Handle, Process

#: Seconds after SIGTERM until SIGKILL, and after that until it is reported.
_POLITE, _FIRM = 10.0, 5.0
#: Seconds that a process must be old: one that starts has not got its ends yet.
_YOUNGEST = 120.0
#: Bytes of claude-mem's files that are read.
_MAX_FILE = 1 << 20


@click.command("claude-cleanup-safe", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("pids", metavar="[PID]...", nargs=-1, type=int)
@click.option("--kill", is_flag=True, help="Stop the orphans; without this they are only listed.")
@click.option("--all", "every", is_flag=True, help="List those that are kept too, and why.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--min-age", type=click.FloatRange(min=0), default=_YOUNGEST, show_default=True, help="Seconds.")
def main(*, pids: tuple[int, ...], kill: bool, every: bool, as_json: bool, min_age: float) -> None:
    """List your processes of Claude Code, claude-mem and MCP servers that nobody uses any more.

    An orphan has neither a parent nor anything at the other end of its standard input. Processes of containers, of
    systemd's services, and those that claude-mem names in its files are never touched. With PID only these are looked
    at.
    """
    if sys.platform != "linux":
        click.echo("error: this needs Linux: other systems do not show who uses a process", err=True)
        sys.exit(2)
    found = [one for one in look(Path.home(), youngest=min_age) if not pids or one.process.pid in pids]
    orphans = [verdict for verdict in found if not verdict.kept]
    left = stop([verdict.process for verdict in orphans]) if kill else []
    if as_json:
        click.echo(json.dumps([_shown(verdict, kill=kill, left=left) for verdict in (found if every else orphans)]))
    else:
        _print(found if every else orphans)
        _sum_up(orphans, kept=len(found) - len(orphans), kill=kill, left=left)
    sys.exit(1 if left else 0)


def look(home: Path, *, youngest: float) -> list[Verdict]:
    """Return what is running of the kinds. Blocking."""
    table = processes.table()
    own = os.getpid()
    mine = [pid for pid, process in table.items() if process.user == os.geteuid()]
    named = set[int]()
    for file in (home / ".claude-mem" / "supervisor.json", home / ".claude-mem" / "worker.pid"):
        named |= set(_pids(_read_object(file)))
    machine = Machine(
        processes=table,
        opened=processes.opened(mine),
        peers=unix_sockets.peers(),
        own=own,
        named=named,
    )
    return verdicts(machine, youngest=youngest)


def stop(orphans: Sequence[Process]) -> list[Process]:
    """Stop these processes, politely at first; return those that are still there. Blocking."""
    with ExitStack() as stack:
        handles = [handle for one in orphans for handle in _handles(stack, one)]
        for number, patience in ((signal.SIGTERM, _POLITE), (signal.SIGKILL, _FIRM)):
            for handle in handles:
                with suppress(PermissionError):
                    handle.send(number)
            handles = _still_there(handles, Deadline.after(patience))
        return [handle.process for handle in handles]


def _handles(stack: ExitStack, process: Process) -> Iterator[Handle]:
    # It may have ended since it was listed.
    with suppress(ProcessLookupError):
        yield stack.enter_context(_held(process))


@contextmanager
def _held(process: Process) -> Generator[Handle]:
    handle = Handle(process)
    try:
        yield handle
    finally:
        handle.close()


def _still_there(handles: Sequence[Handle], deadline: Deadline) -> list[Handle]:
    waiting = {handle.fileno(): handle for handle in handles}
    while waiting and not deadline.passed:
        ended, _, _ = select.select(list(waiting), [], [], deadline.remaining())
        for file in ended:
            del waiting[file]
    return list(waiting.values())


def _read_object(file: Path) -> object:
    try:
        with file.open("rb") as opened:
            return json.loads(opened.read(_MAX_FILE))
    except (OSError, ValueError):
        return None


def _pids(value: object) -> Iterator[int]:
    """Return every process id in a file of claude-mem, however deep: its form changes between versions."""
    if isinstance(value, dict):
        for key, inner in cast("dict[str, object]", value).items():
            if key in {"pid", "pgid"} and isinstance(inner, int):
                yield inner
            yield from _pids(inner)
    elif isinstance(value, list):
        for inner in cast("list[object]", value):
            yield from _pids(inner)


def _shown(verdict: Verdict, *, kill: bool, left: Sequence[Process]) -> dict[str, object]:
    process = verdict.process
    return {
        "pid": process.pid,
        "kind": verdict.kind.value,
        "age_seconds": round(process.age),
        "resident_bytes": process.resident,
        "command": list(process.command),
        "kept": verdict.kept,
        "stopped": kill and not verdict.kept and process not in left,
    }


def _print(found: Sequence[Verdict]) -> None:
    rows = [
        (
            str(verdict.process.pid),
            verdict.kind.value,
            units.duration(verdict.process.age),
            units.size(verdict.process.resident),
            verdict.kept or "orphan",
            units.printable(" ".join(verdict.process.command))[:100],
        )
        for verdict in found
    ]
    tables.table(("pid", "kind", "age", "memory", "*state", "*command"), rows, empty="no orphans")


def _sum_up(orphans: Sequence[Verdict], *, kept: int, kill: bool, left: Sequence[Process]) -> None:
    memory = units.size(sum(verdict.process.resident for verdict in orphans))
    if kill and orphans:
        click.echo(f"Stopped {units.count(len(orphans) - len(left), 'process')} of {memory}.")
    elif orphans:
        click.echo(f"{units.count(len(orphans), 'orphan')} of {memory}: `claude-cleanup-safe --kill` stops them.")
    if kept:
        click.echo(f"Kept {kept} that are in use: `claude-cleanup-safe --all` says why.")
    for process in left:
        click.echo(f"error: process {process.pid} does not end: it waits for the disk or a device", err=True)
