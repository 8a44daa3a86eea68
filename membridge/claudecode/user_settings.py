"""Changes the hooks in Claude Code's settings.json, a file of the user that Claude Code itself rewrites at any time.

A file that is not valid JSON is left alone. What Membridge does not know stays, in its order. The old file is kept as a
backup, and the new one takes its place only while the old one is what was read.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import cast

from membridge.errors import ConflictError, InvalidRequestError
from membridge.system import files

#: What a JSON object is here.
Document = dict[str, object]
#: How often it starts over when the file changes in between.
ATTEMPTS = 5


def change(file: Path, edit: Callable[[Document], None], *, backup: Path | None = None) -> bool:
    """Change the settings by `edit`; return whether that changed anything. Blocking.

    `edit` is called again when the file changed in between. `backup` gets the old file before the new one is in place.
    Raises InvalidRequestError for a file that cannot be changed safely, and ConflictError when it changes all the time.
    """

    def changed(before: bytes | None) -> bytes | None:
        document = parse(before, file)
        kept = json.dumps(document)
        edit(document)
        if json.dumps(document) == kept:
            return before
        if backup is not None and before is not None:
            files.save(backup, before)
        return _bytes(document, before)

    return _replaced(file, changed)


def take_back(
    file: Path, edit: Callable[[Document], None], original: Callable[[Document], bytes | None], *, created: bool
) -> bool:
    """Undo a change by `edit`; return whether the file is exactly what it was before that change. Blocking.

    `original` returns the old file for what is left after `edit`, if that is all that differed. A file that was
    `created` and holds nothing else is removed. Raises as `change` does.
    """
    exact = False

    def undone(before: bytes | None) -> bytes | None:
        nonlocal exact
        document = parse(before, file)
        edit(document)
        old = original(document)
        gone = created and not document
        exact = before is None or gone or old is not None
        return None if gone or before is None else old if old is not None else _bytes(document, before)

    _replaced(file, undone)
    return exact


def parse(content: bytes | None, file: Path) -> Document:
    """Return what the settings hold, nothing without a file. Raises InvalidRequestError for what is not an object."""
    if content is None or not content.strip():
        return {}
    try:
        document: object = json.loads(content, object_pairs_hook=_without_repetition, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError(
            f"{file} was left alone: it is not valid JSON: {error}",
            remedy="correct the file and run the command again",
            field=file.name,
        ) from error
    if not isinstance(document, dict):
        raise _unknown(file.name, "an object")
    return cast("Document", document)


def add(document: Document, event: str, hook: Document) -> None:
    """Add a hook to an event unless it is there. Raises InvalidRequestError where the settings have another form."""
    groups = _groups(document, event)
    if not any(hook in _hooks(group, event) for group in groups):
        groups.append({"hooks": [hook]})


def remove(document: Document, chosen: Callable[[str], bool]) -> None:
    """Remove the hooks whose command is `chosen`, and the groups, events and objects that this leaves empty."""
    every = document.get("hooks")
    events = cast("Document", every) if isinstance(every, dict) else {}
    for event in list(events):
        groups = _groups(document, event)
        for group in list(groups):
            hooks = _hooks(group, event)
            left = [hook for hook in hooks if not ((command := _command(hook)) and chosen(command))]
            if len(left) < len(hooks):
                group["hooks"] = left
                if not left:
                    groups.remove(group)
                if not groups:
                    del events[event]
                if not events:
                    del document["hooks"]


def commands(document: Document) -> list[str]:
    """Return the command of each command hook."""
    every = document.get("hooks")
    events = cast("Document", every) if isinstance(every, dict) else {}
    return [
        command
        for event in events
        for group in _groups(document, event)
        for hook in _hooks(group, event)
        if (command := _command(hook))
    ]


def bare(document: Document) -> str:
    """Return what the settings say, to compare them: without events and groups that have no hook."""
    kept = {name: value for name, value in document.items() if name != "hooks"}
    every = document.get("hooks")
    if isinstance(every, dict):
        events = cast("Document", every)
        full = {event: [group for group in _groups(document, event) if _hooks(group, event)] for event in events}
        kept["hooks"] = {event: groups for event, groups in full.items() if groups}
    return json.dumps({name: value for name, value in kept.items() if name != "hooks" or value}, sort_keys=True)


def _replaced(file: Path, content: Callable[[bytes | None], bytes | None]) -> bool:
    """Give the file the content that follows from its old one (None: no file); return whether that is another one."""
    # A link, as into a repository of dot files, stays one.
    file = file.resolve()
    part = file.with_name(f"{file.name}.membridge")
    with files.translated(file):
        part.unlink(missing_ok=True)
        for _ in range(ATTEMPTS):
            before = files.read_if_there(file)
            after = content(before)
            if after == before:
                return False
            try:
                if after is not None:
                    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                    part.touch(mode=0o600)
                    part.write_bytes(after)
                    if before is not None:
                        part.chmod(file.stat().st_mode & 0o777)
                if files.read_if_there(file) == before:
                    if after is None:
                        file.unlink()
                    else:
                        files.put_in_place(part, file)
                    return True
            finally:
                files.discard(part)
    raise ConflictError(
        f"{file} was left alone: it changed {ATTEMPTS} times while it was read",
        remedy="close Claude Code, which writes this file, and run the command again",
    )


def _groups(document: Document, event: str) -> list[Document]:
    every = document.setdefault("hooks", {})
    if not isinstance(every, dict):
        raise _unknown("hooks", "an object")
    groups = cast("Document", every).setdefault(event, [])
    if not isinstance(groups, list) or not all(isinstance(one, dict) for one in cast("list[object]", groups)):
        raise _unknown(f"hooks.{event}", "a list of objects")
    return cast("list[Document]", groups)


def _hooks(group: Document, event: str) -> list[object]:
    hooks = group.get("hooks")
    if not isinstance(hooks, list):
        raise _unknown(f"hooks.{event}[].hooks", "a list")
    return cast("list[object]", hooks)


def _command(hook: object) -> str:
    command = cast("Document", hook).get("command") if isinstance(hook, dict) else None
    return command if isinstance(command, str) else ""


def _without_repetition(pairs: list[tuple[str, object]]) -> Document:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("an object has a key twice, and one of the two would be lost")
    return found


def _refuse(constant: str) -> object:
    raise ValueError(f"{constant} is not JSON")


def _unknown(where: str, wanted: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"settings.json was left alone: `{where}` is not {wanted}",
        remedy="correct the file and run the command again",
        field=where,
    )


def _bytes(document: Document, before: bytes | None) -> bytes:
    """Return the settings as JSON, indented as they were."""
    old = (before or b"").decode(errors="replace")
    second = old.split("\n", 2)[1] if "\n" in old else ""
    indent = second[: len(second) - len(second.lstrip())] or ("  " if not old else None)
    end = "\n" if old.endswith("\n") or not old else ""
    try:
        return (json.dumps(document, indent=indent, ensure_ascii=False) + end).encode()
    except UnicodeEncodeError:
        # Half a surrogate pair, which only an escape can write.
        return (json.dumps(document, indent=indent) + end).encode()
