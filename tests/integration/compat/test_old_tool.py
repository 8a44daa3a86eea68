"""Callers of the old tool: its module by name, its functions, its lines, and its exit codes."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from membridge.bus.connection import Bus
from membridge.claudemem.memory import memory_rows
from membridge.compat import doctor_project, pull_project, push_project
from membridge.testing.node_process import NodeProcess
from schemas.identity import canonical_id
from schemas.leadership import Role
from tests.fixtures.machines import PROJECT, MakeMachine, command, until


async def old(machine: NodeProcess, name: str) -> tuple[int, str]:
    """Run a command of the old tool on a machine, elsewhere than in its folder."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "sqlite_minio_sync", name),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=machine.environment(),
        cwd=machine.home,
    )
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


def observations(machine: NodeProcess) -> int:
    return len(memory_rows(machine.database)["observations"])


async def test_the_old_commands_do_what_their_callers_expect(make_machine: MakeMachine) -> None:
    a, b = make_machine("a", memory=True), make_machine("b")

    assert await old(a, "print_project") == (
        0, f"project_name: {PROJECT}\ncanonical_project_id: {canonical_id(PROJECT)}\n",
    )  # fmt: skip
    code, output = await old(a, "push_sqlite")
    assert (code, "PUSH COMPLETE" in output) == (0, True), output
    code, output = await old(a, "push_sqlite")
    assert (code, "RESULT: remote already up to date" in output) == (0, True), output
    code, output = await old(b, "pull_sqlite")
    assert (code, "SYNC COMPLETE" in output) == (0, True), output
    assert observations(b) == observations(a) > 0
    code, output = await old(a, "leadership_info")
    assert (code, "=== Leadership Lease ===" in output, "node_id:      a" in output) == (0, True, True)
    code, output = await old(a, "doctor")
    assert (code, "STATUS: " in output) == (0, True), output
    code, output = await old(a, "nonsense")
    assert (code, "Usage: sqlite_minio_sync.py" in output) == (1, True)


async def test_refusals_keep_their_exit_codes(make_machine: MakeMachine, bus: Bus) -> None:
    a, b = make_machine("a", memory=True), make_machine("b")
    await command(a, "push")
    await command(b, "pull")
    await a.start()
    await until(bus, a, lambda seen: seen.project.role is Role.PRIMARY)
    assert "role:          primary" in (await old(a, "leadership_info"))[1]
    await b.write(1, "of b")
    code, output = await old(b, "push_sqlite")
    assert (code, "SECONDARY: push blocked by default." in output) == (3, True), output
    code, output = await old(b, "leadership_info")
    assert "role:          secondary" in output
    assert "primary:       a" in output
    await a.write(1, "not pushed yet")
    code, output = await old(a, "pull_sqlite")
    # The automatic push may have been faster: then nothing differs, and nothing is refused.
    assert code in {0, 2}, output
    assert code == 0 or "PRIMARY: refusing destructive pull overwrite" in output


async def test_a_failure_is_exit_code_one_with_its_reason(make_machine: MakeMachine) -> None:
    a = make_machine("a", MEMBRIDGE_NATS_URL="nats://127.0.0.1:1")

    code, output = await old(a, "push_sqlite")
    assert (code, "ERROR: " in output) == (1, True), output


def test_the_functions_return_what_the_old_ones_did(
    make_machine: MakeMachine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = make_machine("a", memory=True)
    for name in list(os.environ):
        monkeypatch.delenv(name)
    for name, value in a.environment().items():
        monkeypatch.setenv(name, value)
    # The project's name is the argument's, whatever the environment says.
    monkeypatch.setenv("CLAUDE_PROJECT_ID", "another")

    pushed = push_project(PROJECT)
    assert (pushed["ok"], pushed["returncode"], pushed["action"]) == (True, 0, "push"), pushed
    assert (pushed["project"], pushed["canonical_id"]) == (PROJECT, canonical_id(PROJECT))
    assert pushed["detail"] == "push completed"
    assert "PUSH COMPLETE" in (pushed["stdout"] or "")
    assert pushed["finished_at"] >= pushed["started_at"] > 0
    assert pull_project(PROJECT)["ok"]
    assert "STATUS: " in (doctor_project(PROJECT)["stdout"] or "")

    config = tmp_path / "config.env"
    config.write_text('CLAUDE_MEM_DB="/nowhere/at all.db"\n')
    failed = push_project(PROJECT, config_path=config)
    assert (failed["ok"], failed["returncode"], failed["detail"]) == (False, 1, "push failed")
    assert "/nowhere/at all.db" in (failed["stdout"] or "")
    late = push_project(PROJECT, timeout=0)
    assert (late["ok"], late["returncode"], late["detail"]) == (False, -1, "push timed out after 0s")
