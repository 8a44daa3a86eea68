"""The old tool's hook names run the scripts of the plugin, and nothing where there is no plugin."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from membridge.hooks.paths import hook_paths
from tests.fixtures.hook_daemon import hook_daemon
from tests.integration.claudecode.conftest import Scripts

INPUT = b'{"session_id":"s-1"}'


def run(scripts: Scripts, name: str, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[bytes]":
    program = Path(sys.executable).with_name(f"claude-mem-hook-{name}")
    given = {"PATH": os.environ["PATH"], "HOME": str(scripts.home), **environment}
    return subprocess.run([program, *arguments], input=INPUT, capture_output=True, env=given, timeout=60, check=False)


def test_push_puts_a_stop_into_the_spool(scripts: Scripts, state: Path) -> None:
    done = run(scripts, "push", "--project", "boat")

    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert [file.read_bytes() for file in hook_paths(state).new.iterdir()] == [b"membridge 1 Stop boat\n" + INPUT]


async def test_pull_asks_the_daemon(scripts: Scripts, state: Path) -> None:
    async with hook_daemon(state) as daemon:
        done = await asyncio.to_thread(run, scripts, "pull", "--project", "boat")

    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout)["hookSpecificOutput"]["additionalContext"] == daemon.context
    assert [(event.project, event.texts) for event in daemon.asked] == [("boat", {"session_id": "s-1"})]


@pytest.mark.parametrize("name", ["push", "pull"])
def test_without_the_plugin_nothing_happens(scripts: Scripts, tmp_path: Path, name: str) -> None:
    done = run(scripts, name, CLAUDE_CONFIG_DIR=str(tmp_path))

    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
