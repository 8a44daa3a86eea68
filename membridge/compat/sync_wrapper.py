"""`push_project`, `pull_project` and `doctor_project`: one command in a process of its own, its result as a dict.

They never raise for what a command reports: `ok` and `returncode` say it, and `stderr` why.
"""

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

from membridge.errors import SettingsError
from membridge.settings.groups import GROUPS
from membridge.settings.sources import from_legacy
from membridge.settings.table import table_of
from membridge.system import clock
from schemas.identity import canonical_id

#: Lines of output that a result holds at most, the last ones.
MOST_LINES = 200
#: What the old tool returned for a command that did not come to its end.
NOT_ENDED = -1
_COMMANDS = {"push": "push_sqlite", "pull": "pull_sqlite", "doctor": "doctor"}


class SyncResult(TypedDict):
    """The result of one command; `stdout` and `stderr` are None where it printed nothing. Times are since 1970."""

    ok: bool
    action: str
    project: str
    canonical_id: str
    hostname: str
    detail: str
    stdout: str | None
    stderr: str | None
    returncode: int
    started_at: float
    finished_at: float


def push_project(project_name: str, config_path: Path | None = None, timeout: int = 120) -> SyncResult:
    """Commit this machine's memory of a project, as `push_sqlite`; `timeout` in seconds."""
    return _run("push", project_name, config_path, timeout)


def pull_project(
    project_name: str,
    no_restart_worker: bool = True,  # noqa: FBT001, FBT002 - as callers of the old tool give it
    config_path: Path | None = None,
    timeout: int = 120,
) -> SyncResult:
    """Replace this machine's memory of a project by the newest snapshot, as `pull_sqlite`; `timeout` in seconds."""
    given = {"MEMBRIDGE_NO_RESTART_WORKER": "1"} if no_restart_worker else {}
    return _run("pull", project_name, config_path, timeout, given)


def doctor_project(project_name: str, config_path: Path | None = None, timeout: int = 120) -> SyncResult:
    """Examine what a project needs on this machine; `timeout` in seconds."""
    return _run("doctor", project_name, config_path, timeout)


def _run(
    action: str, project: str, config: Path | None, timeout: int, given: Mapping[str, str] | None = None
) -> SyncResult:
    started = clock.now().timestamp()
    out, err, code, detail = "", "", NOT_ENDED, ""
    try:
        # What the file says counted more than the environment, and the project's name most.
        environment = {**os.environ, **_of_file(config), **(given or {}), "CLAUDE_PROJECT_ID": project}
        done = subprocess.run(  # noqa: S603 - our own program, no shell
            [sys.executable, "-m", "membridge.compat.sqlite_minio_sync", _COMMANDS[action]],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=timeout,
            env=environment,
        )
        out, err, code = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"), done.returncode
        detail = f"{action} {'completed' if code == 0 else 'failed'}"
    except subprocess.TimeoutExpired:
        detail = f"{action} timed out after {timeout}s"
    except (OSError, ValueError, SettingsError) as error:
        detail = f"{action} error: {error}"
    return SyncResult(
        ok=code == 0,
        action=action,
        project=project,
        canonical_id=canonical_id(project),
        hostname=platform.node(),
        detail=detail,
        stdout=_tail(out),
        stderr=_tail(err),
        returncode=code,
        started_at=started,
        finished_at=clock.now().timestamp(),
    )


def _of_file(config: Path | None) -> dict[str, str]:
    """Return the variables of another `config.env` than the usual one, which the settings read themselves."""
    named = config or os.environ.get("MEMBRIDGE_CONFIG_ENV")
    if named is None:
        return {}
    path = Path(named).expanduser()
    if not path.exists():
        return {}
    found = from_legacy(path.read_text("utf-8"), path, os.environ, table_of(GROUPS))
    return {raw.label: str(raw.value) for raw in found.values.values()}


def _tail(text: str) -> str | None:
    lines = text.splitlines()
    if len(lines) <= MOST_LINES:
        return text or None
    return "\n".join([f"... ({len(lines) - MOST_LINES} lines truncated)", *lines[-MOST_LINES:]])
