"""A command that is killed before any of its renames leaves each file old or new, and is repeated or undone."""

import asyncio
import json
import shutil
import signal
import sys
from pathlib import Path

from membridge.testing.node_process import NodeProcess
from tests.fixtures.machines import MakeMachine, command

#: Runs a command that SIGKILL ends before its rename of this number.
KILLED = """
import os, pathlib, signal, sys
limit, count, rename = int(sys.argv[1]), 0, pathlib.Path.replace
def replace(self, target):
    global count
    count += 1
    if count == limit:
        os.kill(os.getpid(), signal.SIGKILL)
    return rename(self, target)
pathlib.Path.replace = replace
from membridge.cli.main import main
sys.exit(main(sys.argv[2:]))
"""


async def killed(machine: NodeProcess, limit: int, *arguments: str) -> int:
    """Run a command that is killed before rename `limit`; return its exit code, 0 where it did not come that far."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", KILLED, str(limit), "claude-config", *arguments),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        env=machine.environment(),
    )
    return await process.wait()


def tree(machine: NodeProcess) -> dict[str, bytes]:
    config = machine.home / ".claude"
    return {str(file.relative_to(config)): file.read_bytes() for file in config.rglob("*") if file.is_file()}


def write(machine: NodeProcess, path: str, text: str) -> None:
    file = machine.home / ".claude" / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


async def test_a_pull_that_is_killed_anywhere_is_repeated_or_undone(make_machine: MakeMachine, tmp_path: Path) -> None:
    a, b = make_machine("a"), make_machine("b")
    write(a, "CLAUDE.md", "new\n")
    write(a, "skills/s/SKILL.md", "new\n")
    write(a, "settings.json", json.dumps({"model": "opus"}))
    write(b, "rules/own.md", "own\n")
    write(b, "settings.json", json.dumps({"env": {"A": "1"}}, indent=4))
    await command(a, "claude-config", "push")
    before = tree(b)
    shutil.copytree(b.home, tmp_path / "template")
    after = {**before, "CLAUDE.md": b"new\n", "skills/s/SKILL.md": b"new\n"}
    after["settings.json"] = (json.dumps({"env": {"A": "1"}, "model": "opus"}, indent=4)).encode()

    codes: list[int] = []
    while not codes or codes[-1]:
        shutil.rmtree(b.home)
        shutil.copytree(tmp_path / "template", b.home)
        codes.append(await killed(b, len(codes) + 1, "pull", "--yes"))
        seen = {path: body for path, body in tree(b).items() if not path.endswith(".membridge.part")}
        assert all(body in {before.get(path), after[path]} for path, body in seen.items()), len(codes)
        assert set(before) <= set(seen)
        halfway = tmp_path / f"halfway-{len(codes)}"
        shutil.copytree(b.home, halfway)
        code, output = await b.command("claude-config", "pull", "--yes")
        assert (code, tree(b)) == (0, after), output
        # Undone instead.
        shutil.rmtree(b.home)
        shutil.copytree(halfway, b.home)
        code, output = await b.command("claude-config", "pull", "--undo")
        # Killed before there was a record: nothing was written then.
        assert (code, tree(b)) == (int(len(codes) == 1), before), output
        assert not (b.home / ".claude/skills").exists()

    assert set(codes[:-1]) == {-signal.SIGKILL}
    assert len(codes) - 1 == 5


async def test_a_push_that_is_killed_after_it_was_stored_is_done(make_machine: MakeMachine) -> None:
    a, b = make_machine("a"), make_machine("b")
    write(a, "CLAUDE.md", "new\n")
    (b.home / ".claude").mkdir(parents=True)

    assert await killed(a, 1, "push") == -signal.SIGKILL
    await command(b, "claude-config", "pull")
    assert tree(b) == {"CLAUDE.md": b"new\n"}
    again = await command(a, "claude-config", "push")
    assert (again["seq"], again["changes"]) == (1, [])
    write(b, "CLAUDE.md", "newer\n")
    await command(b, "claude-config", "push")
    await command(a, "claude-config", "pull")
    assert tree(a) == {"CLAUDE.md": b"newer\n"}
