"""Installs the hooks into Claude Code and removes them: the plugin's folder, and settings.json where it is needed.

A receipt lists what is made before it is made. So an installation that was killed at any step is completed by the next
one, or removed by `uninstall`.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from membridge.claudecode import json_file, plugin, user_settings
from membridge.claudecode.json_file import Document
from membridge.claudecode.place import Place, Receipt, is_old
from membridge.claudecode.plugin import MADE_HERE, Reach
from membridge.errors import InvalidRequestError
from membridge.system import files


@dataclass(frozen=True, slots=True)
class Installed:
    """What happened to settings.json: whether it changed, and the old hooks that were found there."""

    changed_settings: bool = False
    old_hooks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Removed:
    """Whether there were hooks, and what is left: files that Membridge did not write, a backup of the settings."""

    was_there: bool
    foreign: tuple[Path, ...] = ()
    backup: Path | None = None


def install(place: Place, source: Path, reach: Reach, *, into_settings: bool, replace_old: bool) -> Installed:
    """Install the plugin, and its hooks in settings.json if `into_settings`; idempotent, an upgrade too. Blocking.

    `source` is the plugin as it is shipped. Old hooks are removed from settings.json if `replace_old`, and otherwise
    only reported. Raises ConflictError when something else is in the plugin's place, and InvalidRequestError for
    settings that cannot be changed safely. What was done until then stays, and the next run completes it.
    """
    plugin.refuse_foreign(place.plugin)
    before = place.load()
    content = plugin.content(source, reach)
    names = {str(path) for path in content}
    made = dict.fromkeys((*before.folders, *_missing(place.plugin), *_missing(place.receipt.parent)))
    receipt = replace(before, files=tuple(sorted({*before.files, *names})), folders=tuple(made))
    place.save(receipt)
    plugin.write(place.plugin, content)
    plugin.remove(place.plugin, [Path(name) for name in before.files if name not in names])
    receipt = replace(receipt, files=tuple(sorted(names)))
    place.save(receipt)
    return _change_settings(place, receipt, into_settings=into_settings, replace_old=replace_old)


def uninstall(place: Place, source: Path, *, spool: Path | None) -> Removed:
    """Remove what `install` made, and give settings.json back as it was; idempotent. Blocking.

    Settings that changed since the installation keep their changes and lose only Membridge's hooks. The folders of
    `spool` go when they are empty; None leaves them to a daemon that runs.
    """
    receipt = place.load()
    ours = plugin.is_ours(place.plugin)
    backup = _restore_settings(place, receipt)
    names = {Path(name) for name in receipt.files} | {*plugin.shipped(source), *MADE_HERE}
    if ours or _is_bare(place.plugin):
        left = plugin.remove(place.plugin, names)
    else:
        # Something else took its place since.
        left = [place.plugin] if receipt.files and os.path.lexists(place.plugin) else []
    for file in (*([place.backup] if backup is None else []), place.receipt):
        files.discard_saved(file)
    emptied = [] if spool is None else [spool / "tmp", spool / "new", spool]
    for folder in (place.receipt.parent, *emptied, place.state, *map(Path, reversed(receipt.folders))):
        files.remove_if_empty(folder)
    return Removed(ours, tuple(left), backup)


def _change_settings(place: Place, receipt: Receipt, *, into_settings: bool, replace_old: bool) -> Installed:
    """Bring settings.json to what is wanted: our hooks or none of them, without old ones where that was asked for."""
    content = files.read_if_there(place.settings)
    try:
        every = user_settings.commands(json_file.parse(content, place.settings))
    except InvalidRequestError:
        if into_settings or replace_old or receipt.added:
            raise
        return Installed()
    old = tuple(command for command in every if is_old(command))

    def edit(document: Document) -> None:
        if replace_old:
            user_settings.remove(document, is_old)
        if not into_settings:
            user_settings.remove(document, place.is_ours)
        for event, hook in place.hooks() if into_settings else ():
            user_settings.add(document, event, hook)

    had_ours = any(map(place.is_ours, every))
    if not (into_settings or had_ours or (replace_old and old)):
        return Installed(old_hooks=old)
    receipt = replace(
        receipt,
        added=into_settings,
        replaced=receipt.replaced or bool(replace_old and old),
        created=receipt.created if had_ours else content is None,
    )
    place.save(receipt)
    # The first backup is the one without a hook of ours.
    backup = None if had_ours else place.backup
    return Installed(user_settings.change(place.settings, edit, backup=backup), old)


def _restore_settings(place: Place, receipt: Receipt) -> Path | None:
    """Take our hooks out of settings.json; return the backup if only that has the old hooks."""
    if not (receipt.added or receipt.replaced):
        return None
    original = files.read_if_there(place.backup)

    def edit(document: Document) -> None:
        user_settings.remove(document, place.is_ours)

    def restored(document: Document) -> bytes | None:
        """Return the file as it was if this is all that differs; None to keep what it holds now."""
        if original is None:
            return None
        then = json_file.parse(original, place.backup)
        as_it_was = {user_settings.bare(then)}
        user_settings.remove(then, is_old if receipt.replaced else place.is_ours)
        return original if user_settings.bare(document) in as_it_was | {user_settings.bare(then)} else None

    exact = user_settings.take_back(place.settings, edit, restored, created=receipt.created)
    return place.backup if receipt.replaced and not exact and original is not None else None


def _is_bare(folder: Path) -> bool:
    """Whether a removal that was killed left nothing but folders in it."""
    return folder.is_dir() and not folder.is_symlink() and all(path.is_dir() for path in folder.rglob("*"))


def _missing(folder: Path) -> Iterator[str]:
    """Return the folders that `folder` needs and that are not there, the outermost first."""
    return (str(one) for one in reversed((folder, *folder.parents)) if not one.exists())
