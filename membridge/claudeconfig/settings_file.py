"""settings.json: the part of it that is portable, and changes of that part in the whole of it. Pure.

An installer that rewrote the file once lost its owner's hooks: keys that we do not know keep their value and place.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

from membridge.claudecode import json_file
from membridge.claudeconfig import documents, home_paths, rules
from membridge.claudeconfig.home_paths import Homes
from membridge.claudeconfig.three_way import Leaf

Json = json_file.Document
#: Where plugins come from elsewhere too; a folder or file is of one machine.
_SOURCES = frozenset({"github", "git", "url", "npm", "git-subdir"})


@dataclass(frozen=True, slots=True)
class Stays:
    """A key that does not travel, as `hooks.Stop[0]`, and why.

    `holds`: it travels from other machines, and theirs may not replace this one.
    """

    key: str
    reason: str
    holds: bool = False


@dataclass(frozen=True, slots=True)
class PortableSettings:
    """The portable keys, the wanted plugins, and what stays."""

    settings: Json
    plugins: Json
    stays: list[Stays] = field(default_factory=list[Stays])


def read(body: bytes | None) -> Json:
    """Return the settings in a file's bytes, none for no file. Raises InvalidRequestError, also for no object."""
    return json_file.parse(body, rules.SETTINGS)


def portable(full: Json, homes: Homes) -> PortableSettings:
    """Return what of the settings travels."""
    found = PortableSettings({}, {})
    for key, value in full.items():
        if key in rules.KEYS:
            _keep_if_portable(found, key, value, homes)
        elif key == "permissions":
            _permissions(found, value, homes)
        elif key == "hooks":
            _hooks(found, value, homes)
        elif key == "statusLine":
            _status_line(found, value, homes)
        elif key in rules.INTENT:
            _intent(found, key, value)
        else:
            found.stays.append(Stays(key, "it is of this machine, or not on the list of keys that travel"))
    return found


def _keep_if_portable(found: PortableSettings, key: str, value: object, homes: Homes) -> None:
    text = json.dumps(value, ensure_ascii=False)
    if home_paths.first_own(text, homes) or home_paths.FOREIGN.search(text):
        found.stays.append(Stays(key, "its value names a folder of this machine", holds=True))
    else:
        found.settings[key] = value


def _permissions(found: PortableSettings, value: object, homes: Homes) -> None:
    kept: Json = {}
    for name, rule in as_object(value).items():
        if name not in rules.PERMISSIONS:
            found.stays.append(Stays(f"permissions.{name}", "a grant is a decision for one machine"))
        elif not isinstance(rule, list) or _names_folder(cast("object", rule), homes):
            found.stays.append(Stays(f"permissions.{name}", "it names a folder of this machine", holds=True))
        else:
            kept[name] = cast("object", rule)
    if kept:
        found.settings["permissions"] = kept


def _names_folder(value: object, homes: Homes) -> bool:
    text = json.dumps(value, ensure_ascii=False)
    return home_paths.first_own(text, homes) is not None or bool(home_paths.FOREIGN.search(text))


def _hooks(found: PortableSettings, value: object, homes: Homes) -> None:
    kept: Json = {}
    for event, groups in as_object(value).items():
        travelling: list[object] = []
        for number, group in enumerate(_list(groups)):
            one, reason = _group(group, homes)
            if one is None:
                found.stays.append(Stays(f"hooks.{event}[{number}]", reason))
            else:
                travelling.append(one)
        if travelling:
            kept[event] = travelling
    if kept:
        found.settings["hooks"] = kept


def _group(group: object, homes: Homes) -> tuple[Json | None, str]:
    """Return the portable form of a group of hooks, None and why when one of them is not portable."""
    fields = as_object(group)
    handlers: list[object] = []
    for handler in _list(fields.get("hooks")):
        one, reason = _handler(handler, homes)
        if one is None:
            return None, reason
        handlers.append(one)
    if not handlers:
        return None, "it has no hook"
    return {**fields, "hooks": handlers}, ""


def _handler(handler: object, homes: Homes) -> tuple[Json | None, str]:
    """Return the portable form of one hook, or of the status line: a command that means the same elsewhere."""
    fields = as_object(handler)
    command = fields.get("command")
    if fields.get("type") != "command" or not isinstance(command, str):
        return None, "only commands travel"
    rest = {name: value for name, value in fields.items() if name != "command"}
    if home_paths.first_own(json.dumps(rest, ensure_ascii=False), homes) is not None:
        return None, "its arguments name a folder of this machine, and no shell replaces $HOME there"
    if home_paths.quoted(command, homes) is not None:
        return None, "its command names the home folder inside single quotes, where no shell replaces $HOME"
    text = home_paths.portable(command, homes).text
    first = text.lstrip("\"'").split(maxsplit=1)[0] if text.strip() else ""
    elsewhere = home_paths.is_elsewhere(text)
    if first.startswith("/") or elsewhere is not None:
        return None, f"its command is an absolute path outside the configuration folder: {elsewhere or first}"
    if home_paths.names_home_outside(text):
        return None, "its command is in the home folder, outside the configuration folder"
    return {name: (text if name == "command" else value) for name, value in fields.items()}, ""


def _intent(found: PortableSettings, key: str, value: object) -> None:
    kept: Json = {}
    for name, one in as_object(value).items():
        if key == "enabledPlugins":
            if isinstance(one, bool) and not name.endswith(("@skills-dir", "@builtin", "@inline")):
                kept[name] = one
            else:
                found.stays.append(Stays(f"{key}.{name}", "it is no plugin of a marketplace"))
            continue
        source = as_object(as_object(one).get("source"))
        if source.get("source") in _SOURCES:
            kept[name] = {"source": source}
        else:
            found.stays.append(Stays(f"{key}.{name}", "its source is a folder or file of this machine"))
    if kept:
        found.plugins[key] = kept


def _status_line(found: PortableSettings, value: object, homes: Homes) -> None:
    one, reason = _handler(value, homes)
    if one is None:
        found.stays.append(Stays("statusLine", reason, holds=True))
    else:
        found.settings["statusLine"] = one


def changed(full: Json, before: Json, after: Json, homes: Homes) -> Json:
    """Return the whole settings with the difference between two portable parts applied.

    Groups of hooks that are not portable stay, behind those that are.
    """
    made = _apply(full, before, after)
    old, new = as_object(before.get("hooks")), as_object(after.get("hooks"))
    events = [event for event in {**old, **new} if old.get(event) != new.get(event)]
    if not events:
        return made
    own = as_object(full.get("hooks"))
    hooks = dict(own)
    for event in events:
        kept = [group for group in _list(own.get(event)) if _group(group, homes)[0] is None]
        groups = [*_list(new.get(event)), *kept]
        if groups:
            hooks[event] = groups
        else:
            hooks.pop(event, None)
    made["hooks"] = hooks
    if not hooks:
        del made["hooks"]
    return made


def _apply(full: Json, before: Mapping[str, object], after: Mapping[str, object]) -> Json:
    made = dict(full)
    for key, value in after.items():
        old = before.get(key)
        if key == "hooks" or old == value:
            continue
        if isinstance(value, dict) and isinstance(made.get(key), dict):
            made[key] = _apply(as_object(made[key]), as_object(old), cast("Json", value))
        else:
            made[key] = value
    for key, old in before.items():
        if key in after or key == "hooks":
            continue
        if isinstance(old, dict) and isinstance(made.get(key), dict):
            rest = _apply(as_object(made[key]), cast("Json", old), {})
            if rest:
                made[key] = rest
                continue
        made.pop(key, None)
    return made


def leaves_of(found: PortableSettings) -> dict[str, Leaf]:
    """Return the portable settings and the wanted plugins as documents."""
    made: dict[str, Leaf] = {}
    for path, value in ((rules.SETTINGS, found.settings), (rules.PLUGINS, found.plugins)):
        if value:
            made[path] = Leaf(documents.written(value))
    return made


def as_object(value: object) -> Json:
    """Return a value of the settings as an object; nothing for any other."""
    return cast("Json", value) if isinstance(value, dict) else {}


def _list(value: object) -> list[object]:
    return cast("list[object]", value) if isinstance(value, list) else []
