"""The plugin as it is installed, in a home whose name has a space."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from membridge.claudecode.plugin import SHIPPED, Reach, shipped
from membridge.hooks.paths import hook_paths, make_spool
from tests.fixtures.hook_daemon import state

__all__ = ["state"]


@dataclass(frozen=True, slots=True)
class Scripts:
    """The plugin's scripts, run as Claude Code runs them."""

    folder: Path
    home: Path

    def run(
        self, script: str, *arguments: str, stdin: bytes, shell: tuple[str, ...] = ("/bin/sh",), **environment: str
    ) -> "subprocess.CompletedProcess[bytes]":
        """Run a script to its end. No variable of this process is passed on but those that are given."""
        command = [*shell, str(self.folder / script), *arguments]
        given = {"PATH": os.environ["PATH"], "HOME": str(self.home), **environment}
        return subprocess.run(
            command, input=stdin, capture_output=True, env=given, timeout=60, check=False, start_new_session=True
        )


@pytest.fixture
def scripts(state: Path, tmp_path: Path) -> Scripts:
    home = tmp_path / "home of me"
    folder = home / ".claude" / "skills" / "membridge"
    paths = hook_paths(state)
    make_spool(paths)
    python = Path(sys.executable).resolve()
    reach = Reach(spool=paths.spool, socket=paths.socket, heartbeat=paths.heartbeat, python=python, wait_seconds=1.0)
    for path, content in (shipped(SHIPPED) | reach.files()).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    return Scripts(folder, home)
