"""`claude-cleanup-safe` among real processes: a session is killed, and what it leaves is told from what is in use.

A stand-in of `systemd --user` takes in what loses its parent, so that the test's processes stay the test's. The program
looks at these processes alone: other orphans of this machine are none of a test's business.
"""

import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Generator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from membridge.cli import cleanup
from membridge.system import processes, unix_sockets
from membridge.system.processes import Handle, Process

PATIENCE = 60.0
#: Takes in orphans as `systemd --user` does, by its name too; starts a session for each line that it reads.
MANAGER = """\
import ctypes, os, signal, subprocess, sys
libc = ctypes.CDLL(None)
assert libc.prctl(36, 1) == 0 and libc.prctl(15, b"systemd") == 0
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for line in sys.stdin:
    subprocess.Popen([sys.executable, "-c", line.replace("\\x00", "\\n")], stdout=sys.stdout)
"""
#: Starts the programs of a session and prints their ids, then lives until it is killed.
SESSION = """\
import json, os, signal, socket, subprocess, sys
def start(name, *arguments, stdin, stdout, executable="/bin/sleep"):
    return subprocess.Popen([name, *arguments], executable=executable, stdin=stdin, stdout=stdout).pid
P, N = subprocess.PIPE, subprocess.DEVNULL
ours, theirs = socket.socketpair()
kept, other = os.pipe()
pids = {
    "session": os.getpid(),
    "mcp": start("/x/mcp-server-files", "300", stdin=P, stdout=P),
    "chroma": start("chroma-mcp", "300", stdin=theirs, stdout=theirs),
    "claude": start("claude", "300", stdin=P, stdout=P),
    "daemon": start("mcp-server-daemon", "300", stdin=N, stdout=N),
    "logging": start("mcp-server-logging", "300", stdin=P, stdout=open(LOG, "w")),
    "shared": start("mcp-server-shared", "300", stdin=kept, stdout=P),
    "unrelated": start("sleep", "300", stdin=P, stdout=P),
}
holder = subprocess.Popen(["sleep", "300"], stdin=N, stdout=N, pass_fds=[other])
pids["holder"] = holder.pid
print(json.dumps(pids), flush=True)
signal.pause()
"""


@dataclass(slots=True)
class Login:
    """A user's manager, and the processes that its sessions started."""

    manager: "subprocess.Popen[str]"
    folder: Path
    pids: set[int] = field(default_factory=set[int])

    def session(self) -> dict[str, int]:
        """Start a session; return the processes by their role."""
        assert self.manager.stdin is not None
        assert self.manager.stdout is not None
        script = f"LOG = {str(self.folder / 'log')!r}\n{SESSION}"
        self.manager.stdin.write(script.replace("\n", "\x00") + "\n")
        self.manager.stdin.flush()
        started: dict[str, int] = json.loads(self.manager.stdout.readline())
        self.pids |= {*started.values()}
        return started

    def look(self, pids: dict[str, int], *options: str) -> dict[str, dict[str, Any]]:
        """Run the program over these processes; return what it says of each role."""
        command = [Path(sys.executable).with_name("claude-cleanup-safe"), "--json", "--min-age", "0", *options]
        environ = {"HOME": str(self.folder), "PATH": os.defpath}
        done = subprocess.run(
            [*command, *map(str, pids.values())], env=environ, capture_output=True, text=True, check=False,
            timeout=PATIENCE,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        roles = {pid: role for role, pid in pids.items()}
        return {roles[item["pid"]]: item for item in json.loads(done.stdout)}


@pytest.fixture
def login(tmp_path: Path) -> Generator[Login]:
    command = [sys.executable, "-c", MANAGER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as manager:
        made = Login(manager, tmp_path)
        yield made
        for pid in made.pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def gone(pid: int) -> bool:
    return pid not in processes.table()


def end(pid: int) -> None:
    """Kill a process of this test and wait for its end."""
    watched = os.pidfd_open(pid)
    os.kill(pid, signal.SIGKILL)
    assert select.select([watched], [], [], PATIENCE)[0] == [watched]
    os.close(watched)


def test_a_running_session_has_no_orphans(login: Login) -> None:
    pids = login.session()

    found = login.look(pids, "--all")

    assert {role for role, item in found.items() if not item["kept"]} == set()
    assert {*found} == {"mcp", "chroma", "claude", "daemon", "logging", "shared"}
    assert found["mcp"]["kept"].endswith(f"({pids['session']}) started it")


def test_what_a_killed_session_left_is_listed_and_stopped_and_nothing_else(login: Login) -> None:
    pids = login.session()
    end(pids["session"])

    found = login.look(pids, "--all")

    assert {role: item["kind"] for role, item in found.items() if not item["kept"]} == {
        "mcp": "mcp", "chroma": "chroma", "claude": "claude",
    }  # fmt: skip
    assert found["shared"]["kept"] == f"process {pids['holder']} uses it"
    assert found["daemon"]["kept"] == "it reads or writes /dev/null"
    assert found["logging"]["kept"] == f"it reads or writes {login.folder / 'log'}"
    assert not any(gone(pid) for role, pid in pids.items() if role != "session")

    stopped = login.look(pids, "--kill")

    assert {role for role, item in stopped.items() if item["stopped"]} == {"mcp", "chroma", "claude"}
    assert {role for role, pid in pids.items() if gone(pid)} == {"session", "mcp", "chroma", "claude"}
    assert login.look(pids) == {}


def test_what_claude_mem_names_stays(login: Login) -> None:
    pids = login.session()
    end(pids["session"])
    folder = login.folder / ".claude-mem"
    folder.mkdir()
    known = {"version": 2, "processes": {"chroma-mcp": {"pid": pids["chroma"], "type": "chroma"}}}
    (folder / "supervisor.json").write_text(json.dumps(known))
    (folder / "worker.pid").write_text(json.dumps({"pid": pids["mcp"], "port": 1}))

    login.look(pids, "--kill")

    assert {role for role, pid in pids.items() if gone(pid)} == {"session", "claude"}


def test_one_that_ignores_a_polite_signal_is_killed_and_a_reused_id_is_not_touched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cleanup, "_POLITE", 0.2)
    script = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); signal.pause()"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) as stubborn:
        assert stubborn.stdout is not None
        assert stubborn.stdout.readline() == b"ready\n"
        this = processes.table()[stubborn.pid]
        earlier = Process(**{**{name: getattr(this, name) for name in Process.__slots__}, "started": this.started - 1})

        assert cleanup.stop([earlier]) == []
        assert stubborn.poll() is None
        with pytest.raises(ProcessLookupError):
            Handle(earlier)

        assert cleanup.stop([this]) == []
        assert stubborn.wait(PATIENCE) == -signal.SIGKILL


def test_the_kernel_tells_who_is_at_the_other_end() -> None:
    near, far = socket.socketpair()
    with near:
        inodes = [os.fstat(one.fileno()).st_ino for one in (near, far)]
        found = unix_sockets.peers()
        assert [found[inode] for inode in inodes] == inodes[::-1]

        far.close()
        assert unix_sockets.peers()[inodes[0]] == 0


@pytest.mark.parametrize(
    ("group", "container", "service"),
    [
        ("0::/user.slice/user-1000.slice/session-3.scope", "", ""),
        ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/membridge-node.service", "",
         "membridge-node.service"),
        ("0::/system.slice/docker-0123abcd.scope", "0123abcd.scope", ""),
        ("12:memory:/docker/0123abcd\n0::/", "0123abcd", ""),
        ("0::/kubepods/burstable/pod1/0123", "burstable/pod1/0123", ""),
        ("0::/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-0123.scope", "0123.scope", ""),
        ("0::/machine.slice/machine-debian.scope", "machine-debian.scope", ""),
        ("0::/lxc.payload.web/init.scope", "web", ""),
    ],
)  # fmt: skip
def test_containers_and_services_are_known_by_their_control_group(
    tmp_path: Path, group: str, container: str, service: str
) -> None:
    (tmp_path / "uptime").write_text("1000.0 1.0\n")
    entry = tmp_path / "77"
    entry.mkdir()
    (entry / "stat").write_text(f"77 (a) b) S 1 {' '.join('0' for _ in range(17))} 5000 0 3 {' '.join('0' * 28)}\n")
    (entry / "cmdline").write_bytes(b"/x/chroma-mcp\0--data\0")
    (entry / "cgroup").write_text(group + "\n")

    found = processes.table(tmp_path)[77]

    assert (found.container, found.service) == (container, service)
    assert (found.name, found.parent, found.command) == ("a) b", 1, ("/x/chroma-mcp", "--data"))
    assert found.namespace == ""
