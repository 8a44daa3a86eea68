"""A JSON file of Claude Code that its user edits and that Claude Code itself rewrites at any time, as settings.json.

It is read strictly: what could not be written back as it was is an error, and the file is left alone. It is written
indented as it was. A new content takes the place of the old one only while that is what was read: the comparison is the
last step before the rename.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import cast

from membridge.errors import ConflictError, InvalidRequestError
from membridge.system import files

#: What a JSON object is here.
Document = dict[str, object]
#: How often it starts over when the file changes in between.
ATTEMPTS = 5
_INDENT = re.compile(r"^([ \t]+)\S", re.MULTILINE)


def parsed(content: bytes, name: Path | str) -> object:
    """Return the value in `content`. Raises InvalidRequestError that names the line."""
    try:
        return cast(
            "object", json.loads(content.decode(), object_pairs_hook=_without_repetition, parse_constant=_refuse)
        )
    except (ValueError, RecursionError) as error:
        reason = f"line {error.lineno}: {error.msg}" if isinstance(error, json.JSONDecodeError) else str(error)
        raise InvalidRequestError(
            f"{name} is not valid JSON: {reason}",
            remedy=f"correct {name} and run the command again",
            field=Path(name).name,
        ) from error


def parse(content: bytes | None, name: Path | str) -> Document:
    """Return the object in `content`, an empty one without a file or text. Raises InvalidRequestError for another."""
    if content is None or not content.strip():
        return {}
    value = parsed(content, name)
    if not isinstance(value, dict):
        raise InvalidRequestError(
            f"{name} is not a JSON object", remedy=f"correct {name} and run the command again", field=Path(name).name
        )
    return cast("Document", value)


def written(document: Document, before: bytes | None) -> bytes:
    """Return an object as JSON, with the indentation and the line ends of the file that it replaces."""
    old = (before or b"").decode(errors="replace")
    end = "\n" if old.endswith("\n") or not old.strip() else ""
    indented = _INDENT.search(old)
    one_line = "\n" not in old.strip() and bool(old.strip())
    indent = None if one_line else indented[1] if indented else "" if old.strip() else "  "
    try:
        text = json.dumps(document, indent=indent, ensure_ascii=False) + end
        text.encode()
    except UnicodeEncodeError:
        # Half a surrogate pair, which only an escape can write.
        text = json.dumps(document, indent=indent) + end
    # Inside a string a line end is always escaped.
    return (text.replace("\n", "\r\n") if "\r\n" in old else text).encode()


def replace(file: Path, content: Callable[[bytes | None], bytes | None]) -> bool:
    """Give the file the content that follows from its old one (None: no file); return whether that is another one.

    `content` is called again when the file changed in between. A new file is for its owner only; an existing one keeps
    its permissions. Raises ConflictError when it changes all the time, DiskFullError, FileAccessError. Blocking.
    """
    # A link, as into a repository of dot files, stays one.
    file = file.resolve()
    part = file.with_name(f".{file.name}.membridge.part")
    with files.translated(file):
        part.unlink(missing_ok=True)
        for _ in range(ATTEMPTS):
            before = files.read_if_there(file)
            after = content(before)
            if after == before:
                return False
            try:
                if after is not None:
                    _write(part, after, file if before is not None else None)
                if files.read_if_there(file) != before:
                    continue
                if after is None:
                    file.unlink()
                else:
                    files.put_in_place(part, file)
            finally:
                files.discard(part)
            return True
    raise ConflictError(
        f"{file} was left alone: it changed {ATTEMPTS} times while it was read",
        remedy="close Claude Code, which writes this file, and run the command again",
    )


def _write(part: Path, content: bytes, like: Path | None) -> None:
    """Write a file that is on the disk when it is done, with the permissions of `like`."""
    part.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    part.touch(mode=0o600)
    part.write_bytes(content)
    if like is not None:
        part.chmod(like.stat().st_mode & 0o777)
    # It can take seconds: not between the comparison and the rename.
    files.sync_path(part)


def _without_repetition(pairs: list[tuple[str, object]]) -> Document:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("an object has a key twice, and one of the two would be lost")
    return found


def _refuse(constant: str) -> object:
    raise ValueError(f"{constant} is not JSON")
