"""The doctor's line about Claude Code's hooks: what keeps events from being published, or the hooks from working."""

import json
import os
from pathlib import Path
from typing import cast

from membridge.claudecode import plugin
from membridge.claudecode.place import Place
from membridge.errors import MembridgeError
from membridge.hooks.figures import figures
from membridge.hooks.paths import MOST_FILES, HookPaths, hook_paths
from membridge.node.findings import ok, warn
from membridge.settings import Settings
from membridge.system import clock
from schemas.node import Check

NAME = "hooks"
#: The share of what may wait from which on the spool counts as full; seconds that an event may wait without notice.
FULL, LATE = 0.9, 60.0
_AGAIN = "run `membridge install hooks`"


def check(settings: Settings) -> Check:
    """Return the line. Blocking."""
    place = Place.of_user(settings.node.state_dir)
    paths = hook_paths(settings.node.state_dir)
    found = _of_spool(paths) or _of_plugin(place.plugin, paths, settings)
    if found is not None:
        return found
    data = settings.node.claude_mem_dir
    if not data.is_dir():
        return warn(NAME, f"{data} does not exist", "install the claude-mem plugin, or set CLAUDE_MEM_DATA_DIR")
    if not plugin.is_ours(place.plugin):
        return ok(
            NAME, f"none in {place.claude}; `membridge install hooks` makes a session start with the newest memory"
        )
    return ok(NAME, f"installed in {place.plugin}, no event waits")


def _of_spool(paths: HookPaths) -> Check | None:
    known = figures(paths)
    if known.waiting >= FULL * MOST_FILES:
        return warn(
            NAME,
            f"{known.waiting} session events wait in {paths.new}: of more than {MOST_FILES} hooks drop the rest",
            "start the daemon with `membridge up` or `membridge node`, and see the line `nats`",
        )
    if known.waiting and (since := _oldest(paths)) is not None:
        return warn(
            NAME,
            f"{known.waiting} session events wait in {paths.new} since {clock.local(since)}",
            "start the daemon with `membridge up` or `membridge node`, and see the line `nats`",
        )
    if known.dropped:
        return warn(
            NAME,
            f"{known.dropped} session events were dropped, because too many waited",
            f"nothing else is lost; `rm {paths.dropped}` ends this warning",
        )
    if known.damaged:
        return warn(
            NAME,
            f"{known.damaged} files of the spool were not session events",
            f"see the log and {paths.damaged}; `rm -r {paths.damaged}` ends this warning",
        )
    return None


def _oldest(paths: HookPaths) -> str | None:
    """Return when the oldest event came, None if none waits for long."""
    try:
        oldest = min(entry.stat(follow_symlinks=False).st_mtime for entry in os.scandir(paths.new))
    except (OSError, ValueError):
        return None
    return clock.stamp(oldest) if clock.now().timestamp() - oldest > LATE else None


def _of_plugin(folder: Path, paths: HookPaths, settings: Settings) -> Check | None:
    """Return what is wrong with the installed plugin, None if nothing is or there is none."""
    try:
        if not plugin.is_ours(folder):
            return None
        told: object = json.loads((folder / plugin.PATHS_JSON).read_bytes())
        known = cast("dict[str, object]", told) if isinstance(told, dict) else {}
        reach = plugin.Reach(paths.spool, paths.run, settings.hooks.wait_seconds, str(known.get("project", "")))
        fresh = plugin.content(plugin.SHIPPED, reach)
        stale = sorted(path for path in fresh if (folder / path).read_bytes() != fresh[path])
    except (MembridgeError, OSError, ValueError) as error:
        return warn(NAME, f"the plugin in {folder} is incomplete: {error}", _AGAIN)
    wanted = {
        "spool": ("spool", str(paths.spool)),
        "run": ("folder of questions", str(paths.run)),
        "wait_seconds": ("wait_seconds", settings.hooks.wait_seconds),
    }
    if different := [said for name, (said, value) in wanted.items() if known.get(name) != value]:
        return warn(NAME, f"the plugin in {folder} has another {' and '.join(different)} than the daemon", _AGAIN)
    if stale:
        return warn(NAME, f"the plugin in {folder} is of another version: {stale[0]} differs", _AGAIN)
    return None
