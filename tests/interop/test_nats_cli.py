"""The stock `nats` command line against `membridge up` with keys: every example of the documentation, as operator.

One `up` serves the whole module. The context is the one that `membridge nats-context` writes.
"""

import json
import os
import re
import selectors
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from membridge.embedded.nats_server import NatsServer
from membridge.testing.node_process import NodeProcess
from membridge.testing.writer import write
from schemas.identity import canonical_id
from tests.fixtures.machines import PROJECT, SAMPLE
from tests.fixtures.ports import free_port
from tests.interop.fetch import NATS, build

ROOT = Path(__file__).parents[2]
CID = canonical_id(PROJECT)
#: The pages whose lines are run, beside the README and the reference.
HOWTOS = ("howto/tasks.md", "howto/nats-cli.md")
#: Seconds until a command must have ended, or printed what is waited for.
PATIENCE = 60.0
#: What the answer to each request has at least one of.
ANSWERS = {
    "status": {"project"}, "stats": {"tasks"}, "submit": {"agent_slug"}, "history": {"records"}, "get": {"leader"},
    "nodes": {"nodes"}, "doctor": {"checks"}, "push": {"outcome"}, "gc": {"kept"},
}  # fmt: skip
#: Seconds between two causes of what a command should print that follows: the first may come before it listens.
AGAIN = 2.0


def examples() -> list[str]:
    """Return each line of the documentation that calls the stock CLI."""
    pages = [ROOT / "README.md", *(ROOT / "docs" / name for name in ("reference/nats.md", *HOWTOS))]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    found = re.findall(r"`(nats --context membridge [^`]+)`|^(nats --context membridge .+)$", text, re.MULTILINE)
    lines = ((one or other).replace("{project}", CID).replace("<canonical id>", CID) for one, other in found)
    return list(dict.fromkeys(lines))


@dataclass(slots=True)
class Up:
    """A running `membridge up`, in the home of the one who runs it."""

    machine: NodeProcess
    nats: Path

    def environment(self) -> dict[str, str]:
        return {**self.machine.environment(), "XDG_CONFIG_HOME": str(self.machine.home / ".config"), "TERM": "dumb"}

    def membridge(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command of Membridge."""
        command = [sys.executable, "-m", "membridge.cli.main", *arguments]
        return subprocess.run(
            command, env=self.environment(), capture_output=True, text=True, check=False, timeout=PATIENCE
        )

    def command(self, line: str) -> list[str]:
        """Return a line of the documentation as the command that it is."""
        program, *arguments = shlex.split(line)
        assert program == "nats"
        return [str(self.nats), *arguments]

    def run(self, line: str) -> str:
        """Run a line that ends by itself; return what it printed."""
        done = self.try_to_run(line)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def try_to_run(self, line: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(line), env=self.environment() | environment, capture_output=True, text=True, check=False,
            timeout=PATIENCE, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def watch(self, line: str, wanted: str, cause: Callable[[], object]) -> str:
        """Run a line that goes on, on a terminal of its own, until it has printed `wanted`; `cause` makes it happen."""
        near, far = os.openpty()
        process = subprocess.Popen(self.command(line), env=self.environment(), stdin=far, stdout=far, stderr=far)
        os.close(far)
        said, end = "", time.monotonic() + PATIENCE
        try:
            with selectors.DefaultSelector() as selector:
                selector.register(near, selectors.EVENT_READ)
                while wanted not in said:
                    assert time.monotonic() < end, said
                    if selector.select(AGAIN):
                        said += os.read(near, 1 << 16).decode(errors="replace")
                    else:
                        cause()
        finally:
            process.kill()
            process.wait()
            os.close(near)
        return said


@pytest.fixture(scope="module")
def up() -> Generator[Up]:
    """`up` with a memory that is committed and a coordinator, and the context written."""
    with TemporaryDirectory(prefix="membridge-nats-cli-") as folder:
        url = f"nats://127.0.0.1:{free_port()}"
        machine = NodeProcess("a", Path(folder) / "a", url, PROJECT, extra={"MEMBRIDGE_COORDINATOR": "1"})
        machine.database.parent.mkdir(parents=True)
        shutil.copyfile(SAMPLE, machine.database)
        made = Up(machine, build(NATS))
        with machine.log.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "membridge.cli.main", "up"], env=made.environment(), stdout=log, stderr=log
            )
        try:
            end = time.monotonic() + PATIENCE
            while not _serves(made):
                assert process.poll() is None, machine.log.read_text()
                assert time.monotonic() < end, machine.log.read_text()
            assert made.membridge("nats-context").returncode == 0
            yield made
        finally:
            process.terminate()
            process.wait(PATIENCE)


def _serves(up: Up) -> bool:
    status = up.membridge("status", "--json")
    if status.returncode or json.loads(status.stdout)["project"]["mirror_seq"] < 1:
        return False
    return up.membridge("task", "list").returncode == 0


def learn(up: Up) -> None:
    """Write a row, which the daemon commits by itself."""
    write(str(up.machine.database), 1, "of the stock CLI")


@pytest.mark.parametrize("line", examples())
def test_every_example_of_the_documentation_works_with_the_context(up: Up, line: str) -> None:
    verb = shlex.split(line)[3:]
    if verb[:2] == ["stream", "view"]:
        assert f"membridge.{CID}.event.leadership_changed.a" in up.watch(line, "leadership_changed", lambda: None)
    elif verb[0] == "events":
        assert "JetStream API" in up.watch(line, "JetStream API", lambda: up.run("nats --context membridge stream ls"))
    elif verb == ["subscribe", "membridge.runtime.task.>"]:
        assert "queued" in up.watch(line, "queued", lambda: up.membridge("task", "submit", "hello"))
    elif verb[0] == "subscribe":
        assert "snapshot_committed" in up.watch(line, "snapshot_committed", lambda: learn(up))
    elif verb[:2] == ["kv", "watch"]:
        assert CID in up.watch(line, "created_at", lambda: learn(up))
    else:
        _check(verb, up.run(line))


def _check(verb: list[str], said: str) -> None:
    """Compare what a line that ended printed with what it is for."""
    match verb[:2]:
        case ["request", subject]:
            answer = json.loads(said)
            assert answer.keys() & ANSWERS[subject.rpartition(".")[2]]
            assert answer.get("node", "a") == "a"
            assert subject.startswith((f"membridge.{CID}.", "membridge.runtime"))
        case ["micro", "ls"]:
            assert all(service in said for service in ("membridge-node", "membridge-runtime"))
        case ["micro", "info"]:
            # The daemon, its project and the primary answer by one name, and the first answer is shown.
            told = ("membridge.daemon.node.a.projects", f"membridge.{CID}.node.a.push", f"membridge.{CID}.primary.push")
            assert any(subject in said for subject in told)
        case ["micro", "stats"]:
            assert all(endpoint in said for endpoint in ("status", "push", "resign"))
        case ["kv", "get"]:
            assert '"primary_node_id":"a"' in said
        case ["kv", "history"]:
            assert said.count("PUT") >= 1
        case ["kv", "ls"]:
            assert all(bucket in said for bucket in ("leadership", "heads", "nodes"))
        case ["stream", "ls"]:
            assert all(stream in said for stream in ("EVENTS", "PROPOSALS", "JOBS"))
        case ["stream", "info"]:
            assert "membridge.*.proposal.*" in said
        case _:
            pytest.fail(f"an example that this test does not know: {verb}")


def test_a_user_without_the_context_is_refused(up: Up, tmp_path: Path) -> None:
    line = f"nats --server {up.machine.nats_url} request membridge.{CID}.primary.status ''"

    refused = up.try_to_run(line, HOME=str(tmp_path), XDG_CONFIG_HOME=str(tmp_path))

    assert refused.returncode != 0
    assert "Authorization Violation" in refused.stderr
    context = up.machine.home / ".config" / "nats" / "context" / "membridge.json"
    key = Path(json.loads(context.read_text())["nkey"])
    # What the other user lacks is the key, nothing else.
    assert "EVENTS" in up.run(f"nats --server {up.machine.nats_url} --nkey {key} stream ls")
    assert [path.stat().st_mode & 0o077 for path in (context, key)] == [0, 0]


def test_the_context_has_the_operators_rights(up: Up) -> None:
    asked = up.run(f"nats --context membridge request membridge.{CID}.primary.push '{{\"snapshot\": true}}'")

    assert json.loads(asked)["outcome"] in {"committed", "unchanged"}
    assert "EVENTS" in up.run("nats --context membridge stream info EVENTS")


def test_an_account_is_backed_up_and_restored_into_an_empty_server(
    up: Up, nats_server: NatsServer, tmp_path: Path
) -> None:
    page = (ROOT / "docs" / "recovery.md").read_text(encoding="utf-8")
    save, restore = re.findall(r"^ *(nats --context membridge backup .+)$", page, re.MULTILINE)
    head = up.run(f"nats --context membridge kv get heads {CID} --raw")
    folder = str(tmp_path / "saved")
    empty = f"--server {nats_server.url}"

    up.run(save.replace("membridge-backup", folder))
    up.run(restore.replace("--context membridge", empty).replace("membridge-backup", folder))

    restored = json.loads(up.run(f"nats {empty} kv get heads {CID} --raw"))
    assert restored["record"]["seq"] >= json.loads(head)["record"]["seq"] >= 1
