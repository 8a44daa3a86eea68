"""The configuration lies beside the memory's snapshots: sealed with them, and left alone by what tidies up there."""

import json
from pathlib import Path

from membridge.testing.node_process import NodeProcess
from tests.fixtures.machines import MakeMachine, command


def stored(machine: NodeProcess, text: str) -> None:
    file = machine.home / ".claude/CLAUDE.md"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


async def test_gc_and_verify_leave_it_alone(make_machine: MakeMachine) -> None:
    a = make_machine("a", memory=True)
    stored(a, "one\n")
    await command(a, "push")
    await command(a, "claude-config", "push")
    await command(a, "gc")
    assert (await command(a, "verify"))["findings"] == []
    assert (await command(a, "claude-config", "diff"))["changes"] == []


async def test_it_is_sealed_and_encrypted_again_with_the_snapshots(make_machine: MakeMachine, tmp_path: Path) -> None:
    keys = tmp_path / "sealing.keys"
    a, b = make_machine("a", memory=True), make_machine("b")
    stored(a, "plain at first\n")
    await command(a, "claude-config", "push")
    await command(a, "key", "new", "--file", str(keys))
    for machine in (a, b):
        machine.extra = {**machine.extra, "MEMBRIDGE_ENCRYPTION_KEY_FILE": str(keys)}
    sealed = await command(a, "key", "seal")
    assert [one["unsealed"] for one in sealed["projects"]] == [1]
    (b.home / ".claude").mkdir(parents=True)
    await command(b, "claude-config", "pull")
    assert (b.home / ".claude/CLAUDE.md").read_text() == "plain at first\n"
    stored(b, "sealed\n")
    await command(b, "claude-config", "push")
    await command(a, "claude-config", "pull")
    assert (a.home / ".claude/CLAUDE.md").read_text() == "sealed\n"
    # A machine without the key reads nothing and says so.
    a.extra = {}
    code, output = await a.command("claude-config", "diff", "--json")
    assert (code, "is encrypted with key" in json.loads(output)["message"]) == (1, True), output
