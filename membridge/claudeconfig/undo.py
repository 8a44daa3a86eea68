"""What a pull is about to write, kept until it may not be undone any more. Blocking.

The record is on the disk before the first file changes, so a pull that was killed half-way can be undone too. Undoing
puts back what the pull wrote and nothing else: a file that was changed since stays, in settings.json key by key.
"""

import secrets
from dataclasses import dataclass
from pathlib import Path

import msgspec
import zstandard

from membridge.claudecode import json_file
from membridge.claudeconfig import common_state, documents, place_files, rules, settings_file, three_way
from membridge.claudeconfig.collect import Place, Refusal
from membridge.claudeconfig.three_way import Leaf, Map
from membridge.errors import ConflictError, CorruptObjectError, InvalidRequestError, MembridgeError, NotFoundError
from membridge.system import files
from schemas.wire import Wire

#: Pulls that can be undone, the newest first.
KEPT = 10
#: Bytes of a record: each file before and after, as base64.
_MOST = 128 << 20
_CHANGED = "it was changed after the pull"


class UndoFile(Wire, frozen=True, kw_only=True):
    """A file below the configuration folder before and after a pull; None where it was or is not."""

    path: str
    before: bytes | None = None
    after: bytes | None = None
    executable: bool = False


class UndoRecord(Wire, frozen=True, kw_only=True):
    """One pull: its files, the folders that it makes, and the common state before it."""

    pulled_at: str
    files: list[UndoFile]
    folders: list[str] = msgspec.field(default_factory=list[str])
    common: bytes | None = None


@dataclass(frozen=True, slots=True)
class Undone:
    """What was put back, and what was left."""

    pulled_at: str
    restored: list[str]
    left: list[Refusal]


def save(state: Path, record: UndoRecord) -> None:
    """Keep a record, and drop the oldest ones."""
    folder = state / "undo"
    name = f"{record.pulled_at.replace(':', '').replace('+0000', 'Z')}-{secrets.token_hex(2)}.zst"
    files.save(folder / name, zstandard.ZstdCompressor(level=3).compress(msgspec.json.encode(record)))
    for old in _kept(state)[KEPT:]:
        files.discard(old)


def undo(place: Place) -> Undone:
    """Undo the newest pull that was not undone. Raises NotFoundError when there is none."""
    kept = _kept(place.state)
    if not kept:
        raise NotFoundError("there is no pull to undo on this machine")
    record = _read(kept[0])
    restored: list[str] = []
    left: list[Refusal] = []
    for one in record.files:
        place_files.discard_part(place.config, one.path)
        reason = _put_back(place, one)
        if reason is None:
            restored.append(one.path)
        elif reason:
            left.append(Refusal(one.path, reason))
    for folder in sorted(record.folders, key=len, reverse=True):
        files.remove_if_empty(place.config / folder)
    if record.common is None:
        files.discard(place.state / common_state.FILE)
    else:
        common_state.save(place.state, record.common)
    files.remove(kept[0])
    return Undone(record.pulled_at, restored, left)


def _put_back(place: Place, one: UndoFile) -> str | None:
    """Restore one file: return None when it was, an empty text when nothing was to do, else why it was left."""
    target = place.config / one.path
    try:
        now = place_files.current(place.config, one.path)
    except MembridgeError as error:
        return error.message
    if one.path == rules.SETTINGS:
        return _settings_put_back(target, one)
    if now == one.before:
        return ""
    if now != one.after:
        return _CHANGED
    with files.translated(target):
        if one.before is None:
            files.remove(target)
        else:
            place_files.write(place.config, one.path, Leaf(one.before, one.executable))
    return None


def _settings_put_back(file: Path, one: UndoFile) -> str | None:
    """Restore settings.json, the keys of the pull alone if it was changed since; return as `_put_back` does."""
    reason = ""

    def content(now: bytes | None) -> bytes | None:
        nonlocal reason
        reason = ""
        if now in {one.before, one.after}:
            return one.before
        if now is None or one.before is None or one.after is None:
            reason = _CHANGED
            return now
        return _settings_back(now, one.before, one.after)

    try:
        return None if json_file.replace(file, content) else reason
    except (ConflictError, InvalidRequestError) as error:
        return error.message


def _settings_back(now: bytes, before: bytes, after: bytes) -> bytes:
    """Return settings that were changed since the pull with the pull's keys as they were."""
    base, ours, theirs = (documents.tree_of(rules.SETTINGS, Leaf(body)) for body in (after, now, before))
    merged = three_way.pull(base, ours, theirs, delete=True)
    if not isinstance(merged.result, Map):
        return now
    value = documents.value_of(merged.result)
    return json_file.written(settings_file.read(documents.written(value)), now)


def _kept(state: Path) -> list[Path]:
    return sorted((state / "undo").glob("*.zst"), reverse=True)


def _read(path: Path) -> UndoRecord:
    try:
        with files.translated(path), path.open("rb") as file:
            content = zstandard.ZstdDecompressor().stream_reader(file).read(_MOST)
        return msgspec.json.decode(content, type=UndoRecord)
    except (zstandard.ZstdError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CorruptObjectError(
            f"{path} is damaged, so this pull cannot be undone", remedy=f"remove it to undo the pull before: rm {path}"
        ) from error
