"""The plugin as it is installed, in a home whose name has a space."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from membridge.claudecode.plugin import SHIPPED, Reach, content
from membridge.hooks.paths import hook_paths, make_spool
from tests.fixtures.hook_daemon import state

__all__ = ["state"]

#: busybox where the machine has it: Alpine's shell. bash as macOS starts it.
SHELLS = {
    "sh": ("/bin/sh",),
    "bash": ("bash", "--posix"),
    **({"busybox": ("busybox", "ash")} if shutil.which("busybox") else {}),
}


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
    reach = Reach(spool=paths.spool, run=paths.run, wait_seconds=1.0)
    for path, body in content(SHIPPED, reach).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(body)
    return Scripts(folder, home)
