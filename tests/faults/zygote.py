"""Forks one process for each try: the shim and the product are loaded once, the event loop begins in the fork.

Reads orders from standard input and answers each with what became of its process, one line of JSON both ways.
"""

import asyncio
import ctypes
import json
import os
import resource
import select
import signal
import socket
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import uvloop

from membridge.errors import MembridgeError
from membridge.objectstore.s3.client import S3Options
from schemas.identity import ProjectId
from tests.faults.scenarios import BY_NAME, Stage
from tests.faults.shim import Mode, State
from tests.faults.world import Place, opened
from tests.fixtures import transfers

#: Seconds after which a process that neither ended nor was killed hangs.
PATIENCE = 60.0
_SUBREAPER = 36


class Trial(msgspec.Struct, frozen=True):
    """One try: the scenario on a project in a folder, and what happens at which step."""

    scenario: str
    project: str
    folder: str
    nats_url: str
    s3: dict[str, str] | None
    mode: int
    target: int

    @property
    def place(self) -> Place:
        """The servers."""
        return Place(self.nats_url, S3Options(**self.s3) if self.s3 else None)


class TrialResult(msgspec.Struct, frozen=True):
    """What became of it: `killed`, `hung`, `done` or `failed` with the error's class and text."""

    ended: str
    steps: int
    failed: int = 0
    error: str = ""
    text: str = ""


async def _act(trial: Trial, state: State) -> dict[str, Any]:
    scenario = BY_NAME[trial.scenario]
    async with opened(trial.place) as world:
        stage = Stage(world, Path(trial.folder), ProjectId(trial.project), scenario.terms, state.arm)
        try:
            await scenario.act(stage)
        except MembridgeError as error:
            return {"ended": "failed", "error": type(error).__name__, "text": str(error)}
        finally:
            state.disarm()
    return {"ended": "done"}


def _child(trial: Trial, state: State) -> None:
    os.setsid()
    log = os.open(f"{trial.folder}/child.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for descriptor in (1, 2):
        os.dup2(log, descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    if trial.s3:
        _fork_transfers()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        ended = runner.run(_act(trial, state))
    Path(trial.folder, "outcome.json").write_text(json.dumps(ended), encoding="utf-8")


def _transfer_server() -> ModuleType:
    from tests.fixtures import transfer_server  # noqa: PLC0415 - it loads botocore

    return transfer_server


def _fork_transfers() -> None:
    """Begin a server of transfer processes that belongs to this try and is killed with it."""
    ours, its = socket.socketpair()
    if os.fork() == 0:
        ours.close()
        _transfer_server().serve(its)
        os._exit(0)
    its.close()
    transfers.here = transfers.Transfers(ours)


def _run(trial: Trial, state: State) -> TrialResult:
    if trial.s3:
        # Here, so that each try finds it done. The other store needs none of it.
        _transfer_server().prepare()
    state.set(Mode(trial.mode), trial.target, Path(trial.folder, "a"))
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            _child(trial, state)
            code = 0
        except BaseException:  # noqa: BLE001 - a fork ends here, whatever happened
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    handle = os.pidfd_open(pid)
    ended = bool(select.select([handle], [], [], PATIENCE)[0])
    os.close(handle)
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    _reap()
    counts = {"steps": state.count, "failed": state.failed}
    if not ended:
        return TrialResult("hung", **counts)
    if os.WIFSIGNALED(status):
        return TrialResult("killed", **counts)
    if os.WEXITSTATUS(status) != 0:
        return TrialResult(
            "failed", **counts, error="crash", text=Path(trial.folder, "child.log").read_text("utf-8")[-3000:]
        )
    told = json.loads(Path(trial.folder, "outcome.json").read_text(encoding="utf-8"))
    return TrialResult(**counts, **told)


def _reap() -> None:
    """Wait for what the process had started: it comes to us when its parent is gone."""
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            return


def main() -> None:
    """Serve until the input ends."""
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    state = State(Path(os.environ["IOFAULT_STATE"]))
    print("ready", flush=True)  # noqa: T201 - the answer
    for line in sys.stdin:
        result = _run(msgspec.json.decode(line, type=Trial), state)
        print(msgspec.json.encode(result).decode(), flush=True)  # noqa: T201 - the answer


if __name__ == "__main__":
    main()
