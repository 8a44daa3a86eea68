"""The hooks in Claude Code's settings.json: added and removed, and the file as it was given back.

A file that is not as expected is left alone. What Membridge does not know stays, in its order. The old file is kept as
a backup.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import cast

from membridge.claudecode import json_file
from membridge.claudecode.json_file import Document
from membridge.errors import InvalidRequestError
from membridge.system import files


def change(file: Path, edit: Callable[[Document], None], *, backup: Path | None = None) -> bool:
    """Change the settings by `edit`; return whether that changed anything. Blocking.

    `edit` is called again when the file changed in between. `backup` gets the old file before the new one is in place.
    Raises InvalidRequestError for a file that cannot be changed safely, and ConflictError when it changes all the time.
    """

    def changed(before: bytes | None) -> bytes | None:
        document = json_file.parse(before, file)
        kept = json.dumps(document)
        edit(document)
        if json.dumps(document) == kept:
            return before
        if backup is not None and before is not None:
            files.save(backup, before)
        return json_file.written(document, before)

    return json_file.replace(file, changed)


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
        document = json_file.parse(before, file)
        edit(document)
        old = original(document)
        gone = created and not document
        exact = before is None or gone or old is not None
        return None if gone or before is None else old if old is not None else json_file.written(document, before)

    json_file.replace(file, undone)
    return exact


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


def _unknown(where: str, wanted: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"settings.json was left alone: `{where}` is not {wanted}",
        remedy="correct the file and run the command again",
        field=where,
    )
