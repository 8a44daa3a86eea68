"""A client on Windows at a real server: it joins, submits a task, follows it, and asks the nodes of others.

Every command is a process of its own in which nothing of POSIX can be used; see `tests/fixtures/windows.py`.
"""

import ast
import json
import subprocess
import sys
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from tests.fixtures.windows import OURS
from tests.integration.access.sites import Site, shouting_claude, site
from tests.windows.machine import ROOT, SOON, WindowsMachine

#: What install.ps1 runs; it is checked here for its calls of the registry.
INSTALLER = "membridge/installation/windows_client.py"
#: What modules of a client have for a node alone, by the names that Windows lacks.
FOR_NODES = {
    "membridge/node/addresses.py": {"ioctl"},
    "membridge/node/presence.py": {"uname"},
    "membridge/node/registry.py": {"LOCK_EX", "flock"},
    "membridge/system/files.py": {"POSIX_FADV_DONTNEED", "statvfs"},
}


@pytest.fixture
async def place(tmp_path: Path) -> AsyncGenerator[Site]:
    async with site(tmp_path, MEMBRIDGE_COORDINATOR="1") as made:
        yield made


@pytest.fixture
def claude(tmp_path: Path) -> Path:
    return shouting_claude(tmp_path)


async def test_a_client_joins_and_works_with_tasks(place: Site, claude: Path, tmp_path: Path) -> None:
    windows = WindowsMachine(tmp_path / "windows")
    line = await place.invite("--node", "laptop")

    code, told, complaints = await windows.run("join", line)

    assert (code, complaints) == (0, "")
    assert "This machine is a client" in told
    folder = windows.roaming / "Membridge"
    assert {path.suffix for path in folder.rglob("*") if path.is_file()} == {".toml", ".seed", ".pem"}
    assert not (windows.home / ".claude-mem").exists()
    assert not (windows.home / ".config").exists()
    await waits_and_is_cancelled(windows)
    b = await place.joined("b", MEMBRIDGE_WORKER="1", MEMBRIDGE_CLAUDE=str(claude))
    await b.start()
    try:
        await is_run_and_followed(windows)
        await asks_other_nodes(windows)
    finally:
        await b.stop()
    no_name_is_used_that_windows_lacks(windows)


async def waits_and_is_cancelled(windows: WindowsMachine) -> None:
    """A task waits for a worker, is listed, and is cancelled."""
    task = await windows.json("task", "submit", "wait for nobody")
    listed = await windows.json("task")
    assert [(one["id"], one["status"]) for one in listed["tasks"]] == [(task["id"], "queued")]
    assert (await windows.json("task", "cancel", task["id"]))["status"] == "dead"
    code, told, complaints = await windows.run("task", "result", task["id"])
    assert (code, told) == (1, "")
    assert "is dead" in complaints


async def is_run_and_followed(windows: WindowsMachine) -> None:
    """A task is run by a worker on another machine; the client follows its log to the end."""
    task = await windows.json("task", "submit", "hello from windows")
    code, _, log = await windows.run("task", "logs", "-f", task["id"])
    assert (code, "claude starts" in log, "completed" in log) == (0, True, True), log
    assert (await windows.run("task", "result", task["id"]))[:2] == (0, "HELLO FROM WINDOWS\n")
    (worker,) = (await windows.json("worker"))["workers"]
    assert (worker["id"], worker["status"]) == ("b", "online")


async def asks_other_nodes(windows: WindowsMachine) -> None:
    """It sees the nodes, their jobs and which of them leads; the server refuses what only an operator may."""
    assert {one["node"] for one in (await windows.json("nodes"))["nodes"]} == {"a", "b"}
    assert {one["kind"] for one in (await windows.json("jobs"))["jobs"]} >= {"push", "pull"}
    assert (await windows.json("leader"))["leader"]["primary_node_id"] == "a"
    code, told, _ = await windows.run("push", "--node", "b", "--json")
    assert (code, json.loads(told)["code"]) == (1, "forbidden")
    context = await windows.json("nats-context")
    assert set(context["contexts"]) == {"membridge", "membridge-tasks"}


def no_name_is_used_that_windows_lacks(windows: WindowsMachine) -> None:
    """Pyright, told that this is Windows, knows every name that the loaded modules take from a module."""
    files = sorted({*windows.loaded.read_text("utf-8").splitlines(), str(ROOT / INSTALLER)})
    assert {Path(one).relative_to(ROOT).parts[0] for one in files} <= OURS
    checked = subprocess.run(
        [sys.executable, "-m", "pyright", "--pythonplatform", "Windows", "--pythonpath", sys.executable, "--outputjson",
         *files],
        capture_output=True, text=True, check=False, timeout=SOON * 2, cwd=ROOT, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    found: dict[str, set[str]] = {}
    for one in json.loads(checked.stdout)["generalDiagnostics"]:
        if one.get("rule") == "reportAttributeAccessIssue":
            name = ast.literal_eval(one["message"].split()[0])
            found.setdefault(str(Path(one["file"]).relative_to(ROOT)), set()).add(name)
    assert found == FOR_NODES
