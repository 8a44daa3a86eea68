"""Plugins as intent: which ones should be here, and the commands of Claude Code that bring them.

Their installed files and lists hold absolute paths, so only Claude Code itself writes them. A plugin is common once it
is here: one whose command failed comes again with the next pull.
"""

import asyncio
import shlex
import shutil
from collections.abc import Mapping

from membridge.aio import threads
from membridge.aio.deadline import Deadline
from membridge.claudeconfig import documents, place_files, rules, settings_file, three_way
from membridge.claudeconfig.collect import Place
from membridge.claudeconfig.three_way import MISSING, Leaf, Map, Tree
from membridge.errors import FileAccessError

#: Seconds for one command of Claude Code; an installation clones a repository.
COMMAND = 180.0
CLAUDE = "claude"


def commands(ours: Leaf | None, wanted: Leaf | None) -> list[str]:
    """Return the commands that lead from our plugins to the wanted ones: marketplaces first."""
    old, new = (settings_file.read(leaf.body if leaf else None) for leaf in (ours, wanted))
    made: list[str] = []
    known, markets = _fields(old, "extraKnownMarketplaces"), _fields(new, "extraKnownMarketplaces")
    for name, market in markets.items():
        source = _source(market)
        if known.get(name) != market and source is not None:
            made.append(shlex.join([CLAUDE, "plugin", "marketplace", "add", source]))
    enabled = _fields(old, "enabledPlugins")
    for name, on in _fields(new, "enabledPlugins").items():
        if enabled.get(name) == on or name.startswith("-"):
            continue
        if on:
            made.append(shlex.join([CLAUDE, "plugin", "install", name]))
        elif name in enabled:
            made.append(shlex.join([CLAUDE, "plugin", "disable", name]))
    return made


async def run(wanted: list[str], place: Place) -> bool:
    """Run the commands one after the other; return whether all of them succeeded. Stops at the first that fails.

    Each has its own deadline: before the first one a person was asked, who took as long as people do. Raises
    DeadlineExceededError.
    """
    program = await threads.run(shutil.which, CLAUDE)
    if program is None:
        return False
    for command in wanted:
        arguments = shlex.split(command)[1:]
        async with Deadline.after(COMMAND).scope(command):
            process = await asyncio.create_subprocess_exec(
                program,
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
                cwd=place.config,
            )
            try:
                code = await process.wait()
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
        if code:
            return False
    return True


def here(place: Place) -> Leaf | None:
    """Return the plugins that settings.json names now."""
    try:
        body = place_files.current(place.config, rules.SETTINGS)
    except FileAccessError:
        return None
    portable = settings_file.portable(settings_file.read(body), place.homes)
    return settings_file.leaves_of(portable).get(rules.PLUGINS)


def common(old: Leaf | None, present: Leaf | None, shared: Leaf | None) -> Leaf | None:
    """Return the new common plugins: what is present as shared, for the rest what was common before."""
    trees = [documents.tree_of(rules.PLUGINS, leaf) for leaf in (old, present, shared)]
    return documents.leaf_of(rules.PLUGINS, _agreed(*trees))


def _agreed(old: Tree, present: Tree, shared: Tree) -> Tree:
    if present == shared:
        return shared
    if isinstance(present, Map) and isinstance(shared, Map):
        before: Mapping[str, three_way.Leaf | Map] = old.keys if isinstance(old, Map) else {}
        keys: dict[str, Leaf | Map] = {}
        for key in {**before, **shared.keys}:
            one = _agreed(before.get(key, MISSING), present.keys.get(key, MISSING), shared.keys.get(key, MISSING))
            if one is not MISSING:
                keys[key] = one
        return Map(keys)
    return old


def _source(market: object) -> str | None:
    """Return what `claude plugin marketplace add` takes for a marketplace."""
    source = settings_file.as_object(settings_file.as_object(market).get("source"))
    place = source.get("repo") or source.get("url") or source.get("package")
    if not isinstance(place, str) or not place or place.startswith("-"):
        return None
    ref = source.get("ref")
    return f"{place}#{ref}" if isinstance(ref, str) and ref else place


def _fields(value: Mapping[str, object], key: str) -> dict[str, object]:
    return settings_file.as_object(value.get(key))
