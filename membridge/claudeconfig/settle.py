"""Write what a pull decided: the undo record first, then each file whole, then settings.json by key. Blocking."""

from dataclasses import dataclass, field
from pathlib import Path

from membridge.claudecode import json_file
from membridge.claudeconfig import place_files, rules, settings_file, undo
from membridge.claudeconfig.collect import Place, Refusal
from membridge.claudeconfig.plan import Plan
from membridge.claudeconfig.settings_file import Json
from membridge.claudeconfig.three_sides import Look, Wanted
from membridge.claudeconfig.three_way import Leaf
from membridge.claudeconfig.undo import UndoFile, UndoRecord
from membridge.errors import DiskFullError, MembridgeError
from membridge.system import clock, files


@dataclass(slots=True)
class Settled:
    """What was written, what was not and why, and the files beside others."""

    written: list[str] = field(default_factory=list[str])
    unwritten: dict[str, str] = field(default_factory=dict[str, str])
    beside: list[str] = field(default_factory=list[str])

    def refusals(self) -> list[Refusal]:
        """Return what was not written."""
        return [Refusal(path, reason) for path, reason in sorted(self.unwritten.items())]


@dataclass(frozen=True, slots=True)
class _Write:
    """A file that changes: its path in the merge, its path in the folder, what it was and what it will be."""

    path: str
    where: str
    before: bytes | None
    after: Leaf | None


def settle(place: Place, seen: Look, made: Plan, wanted: Wanted, common: bytes | None, ending: str) -> Settled:
    """Write the files of a plan. `common` is the common state until now, `ending` that of files beside others.

    Errors: DiskFullError; a file that cannot be written for another reason is named in the result.
    """
    settled = Settled()
    writes = _writes(place, seen, made, wanted, settled)
    for path, leaf in sorted(made.beside.items()):
        where = f"{_where(place, seen, wanted, path)}{ending}"
        writes.append(_Write(f"{path}{ending}", where, _current(place, where), leaf))
    settings = made.files.get(rules.SETTINGS) != seen.ours.files.get(rules.SETTINGS)
    if writes or settings:
        undo.save(place.state, _record(place, seen, made, writes, common, settings=settings))
    for one in writes:
        _write(place, one, settled)
    if settings:
        _write_settings(place, seen, made, settled)
    settled.beside = [one.where for one in writes if one.path.endswith(ending) and one.path in settled.written]
    return settled


def _writes(place: Place, seen: Look, made: Plan, wanted: Wanted, settled: Settled) -> list[_Write]:
    """Return what has to be written, without files that are not any more what was collected."""
    found: list[_Write] = []
    for path in sorted({*seen.ours.files, *made.files} - {rules.SETTINGS, rules.PLUGINS}):
        after = made.files.get(path)
        if seen.ours.files.get(path) == after or not wanted.relevant(path):
            continue
        where = _where(place, seen, wanted, path)
        try:
            now = place_files.current(place.config, where)
        except MembridgeError as error:
            settled.unwritten[path] = error.message
            continue
        if now != seen.ours.raw.get(path):
            settled.unwritten[path] = "it was changed during the pull: run it again"
        else:
            found.append(_Write(path, where, now, after))
    return found


def _where(place: Place, seen: Look, wanted: Wanted, path: str) -> str:
    """Return where a file is, below the configuration folder."""
    if path in seen.ours.places:
        return _below(seen.ours.places[path], place)
    folder, _, name = path.rpartition("/")
    if folder in wanted.folders:
        return _below(wanted.folders[folder] / name, place)
    return path


def _below(file: Path, place: Place) -> str:
    return file.relative_to(place.config).as_posix()


def _current(place: Place, where: str) -> bytes | None:
    try:
        return place_files.current(place.config, where)
    except MembridgeError:
        return None


def _record(
    place: Place, seen: Look, made: Plan, writes: list[_Write], common: bytes | None, *, settings: bool
) -> UndoRecord:
    kept = [
        UndoFile(
            path=one.where,
            before=one.before,
            after=one.after.body if one.after else None,
            executable=_was_program(place.config / one.where),
        )
        for one in writes
    ]
    if settings:
        before = seen.ours.settings_body
        after = json_file.written(_merged(place, seen, made, seen.ours.settings), before)
        kept.append(UndoFile(path=rules.SETTINGS, before=before, after=after))
    folders = {folder for one in writes for folder in place_files.new_folders(place.config, one.where)}
    return UndoRecord(pulled_at=clock.stamp(), files=kept, folders=sorted(folders), common=common)


def _was_program(file: Path) -> bool:
    return file.is_file() and bool(file.stat().st_mode & 0o100)


def _write(place: Place, one: _Write, settled: Settled) -> None:
    try:
        if one.after is None:
            with files.translated(place.config / one.where):
                files.remove(place.config / one.where)
        else:
            place_files.write(place.config, one.where, one.after)
    except DiskFullError:
        raise
    except MembridgeError as error:
        settled.unwritten[one.path] = error.message
    else:
        settled.written.append(one.path)


def _merged(place: Place, seen: Look, made: Plan, full: Json) -> Json:
    before, after = seen.ours.files.get(rules.SETTINGS), made.files.get(rules.SETTINGS)
    old, new = (settings_file.read(leaf.body if leaf else None) for leaf in (before, after))
    return settings_file.changed(full, old, new, place.homes)


def _write_settings(place: Place, seen: Look, made: Plan, settled: Settled) -> None:
    """Write the changed keys into settings.json, whatever else Claude Code wrote into it meanwhile."""

    def content(now: bytes | None) -> bytes:
        return json_file.written(_merged(place, seen, made, settings_file.read(now)), now)

    try:
        # Raises for a link or a folder in its place, which `replace` would follow.
        place_files.current(place.config, rules.SETTINGS)
        json_file.replace(place.config / rules.SETTINGS, content)
    except DiskFullError:
        raise
    except MembridgeError as error:
        settled.unwritten[rules.SETTINGS] = error.message
    else:
        settled.written.append(rules.SETTINGS)
