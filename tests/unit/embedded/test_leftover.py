"""A server that a killed process left behind is ended by the next start in its folder; no other process ever is."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from membridge.embedded import leftover, nats_server
from membridge.embedded.nats_server import NatsOptions, Supervisor, start_nats
from membridge.errors import BusUnavailableError
from membridge.system.children import tied


@contextmanager
def running(*command: str) -> Generator["subprocess.Popen[bytes]"]:
    """Run a program during the body that nothing ties to us."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def left_behind(directory: Path, port: int = -1) -> Generator["subprocess.Popen[bytes]"]:
    """Run a server in `directory`, noted and untied, as a killed `up` leaves it where the kernel does not end it."""
    directory.mkdir(parents=True, exist_ok=True)
    command = nats_server._command(NatsOptions(directory, port))
    with running(*command) as server:
        nats_server._wait_ready(server, NatsOptions(directory, port))
        leftover.note(directory, server.pid)
        yield server


def test_it_is_ended_and_the_next_one_has_its_state_and_its_port(tmp_path: Path) -> None:
    with left_behind(tmp_path) as server:
        ports = json.loads((tmp_path / f"nats-server_{server.pid}.ports").read_text("utf-8"))
        port = int(ports["nats"][0].rpartition(":")[2])
        with start_nats(tmp_path, port=port) as second:
            assert server.wait(10.0) == 0, "it was killed, not asked to end"
            assert second.pid != server.pid
    assert not (tmp_path / leftover.FILE).exists()


async def test_a_frozen_one_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftover, "STOP", 0.2)
    with left_behind(tmp_path) as server:
        os.kill(server.pid, signal.SIGSTOP)
        ready = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            part = group.create_task(Supervisor(NatsOptions(tmp_path, -1)).run(ready.set))
            async with asyncio.timeout(30.0):
                await ready.wait()
            part.cancel()
        assert server.wait(10.0) == -signal.SIGKILL


def test_a_process_that_has_its_number_now_is_never_ended(tmp_path: Path) -> None:
    with left_behind(tmp_path) as server:
        noted = json.loads((tmp_path / leftover.FILE).read_text("ascii"))
    with running("cat") as other:
        (tmp_path / leftover.FILE).write_text(json.dumps(noted | {"pid": other.pid}), "ascii")
        assert leftover.end(tmp_path) is None
        with start_nats(tmp_path) as second:
            assert other.poll() is None
            assert json.loads((tmp_path / leftover.FILE).read_text("ascii"))["pid"] == second.pid
        assert other.poll() is None
    assert server.pid != other.pid


@pytest.mark.parametrize(
    "text", ["", "no JSON", "[]", "{}", '{"pid": 1, "started": "x"}', '{"pid": "x"}', '{"pid": -1}']
)
def test_a_note_that_cannot_be_read_ends_nothing(tmp_path: Path, text: str) -> None:
    assert leftover.end(tmp_path) is None
    (tmp_path / leftover.FILE).write_text(text, encoding="ascii")
    assert leftover.end(tmp_path) is None


def test_one_that_may_not_be_ended_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with left_behind(tmp_path) as server:

        def refuse(*_: object) -> None:
            raise PermissionError

        monkeypatch.setattr(signal, "pidfd_send_signal", refuse)
        with pytest.raises(BusUnavailableError, match=f"pid {server.pid}") as failed:
            leftover.end(tmp_path)
    assert f"kill {server.pid}" in failed.value.remedy


def test_where_there_is_no_proc_the_instant_comes_from_ps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftover.sys, "platform", "darwin")
    with left_behind(tmp_path) as server:
        noted = json.loads((tmp_path / leftover.FILE).read_text("ascii"))
        assert noted["started"] == leftover.started(server.pid)
        assert str(server.pid) not in noted["started"]
        # A child that ended stays in the table until it is waited for; what is not one's child does not.
        assert leftover.started(2**22) is None


def test_a_tied_child_ends_with_its_parent_and_has_the_number_that_was_said() -> None:
    parent = (
        f"import subprocess, sys; print(subprocess.Popen({tied(['cat'])!r}, stdin=subprocess.PIPE).pid, flush=True)"
    )
    own_number = parent.replace(f"'{os.getpid()}'", "str(__import__('os').getpid())")
    with running(sys.executable, "-c", f"{own_number}; sys.stdin.read()") as middle:
        assert middle.stdout is not None
        child = int(middle.stdout.readline())
        descriptor = os.pidfd_open(child)
        try:
            name = Path(f"/proc/{child}/comm")
            while name.read_text("ascii").strip() != "cat":
                pass
            middle.kill()
            process = leftover._Process(child)
            assert process.ends_within(10.0)
            process.close()
        finally:
            os.close(descriptor)


def test_a_child_whose_parent_has_ended_before_it_was_tied_does_not_begin(tmp_path: Path) -> None:
    command = tied(["touch", str(tmp_path / "begun")])
    command[command.index(str(os.getpid()))] = "1"
    assert subprocess.run(command, check=False).returncode == 143
    assert list(tmp_path.iterdir()) == []


def test_without_the_python_that_this_process_runs_on_a_child_starts_untied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    assert tied(["cat", "-n"]) == ["cat", "-n"]


def test_a_program_that_cannot_be_run_is_said_by_its_child() -> None:
    done = subprocess.run(tied(["/nonexistent/program"]), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "/nonexistent/program cannot be run: No such file or directory\n")
