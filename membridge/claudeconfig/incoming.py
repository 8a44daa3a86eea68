"""A state from elsewhere, checked again by our own rules before anything of it is used. Pure.

The machine that wrote it may be old, broken or hostile: what our rules do not allow is dropped and reported.
"""

from membridge.claudecode import json_file
from membridge.claudeconfig import rules, settings_file
from membridge.claudeconfig.collect import Refusal, printable
from membridge.claudeconfig.home_paths import Homes
from membridge.claudeconfig.three_way import Leaf
from membridge.errors import MembridgeError
from schemas.claude_config import ConfigFile

#: Homes of no machine: what is portable elsewhere names no home of ours.
_NOWHERE = Homes("", "/.claude")


def checked(files: list[ConfigFile]) -> tuple[dict[str, Leaf], list[Refusal]]:
    """Return the files that this machine would have sent itself, and the refused ones."""
    found: dict[str, Leaf] = {}
    refused: list[Refusal] = []
    collisions = rules.colliding({file.path for file in files})
    for file in files:
        shown = printable(file.path)
        reason = rules.why_not(file.path)
        if reason is None and file.path in found:
            reason = "it is there twice"
        if reason is None and file.path in collisions:
            reason = f"a system without upper and lower case takes it for {printable(collisions[file.path])}"
        if reason is not None:
            refused.append(Refusal(shown, reason))
            continue
        try:
            leaf = _leaf(file, refused)
        except (MembridgeError, UnicodeDecodeError):
            refused.append(Refusal(shown, "it cannot be read"))
            continue
        if leaf is not None:
            found[file.path] = leaf
    return found, refused


def _leaf(file: ConfigFile, refused: list[Refusal]) -> Leaf | None:
    """Return a file as our rules leave it, None if nothing of it is left."""
    file.body.decode()
    if file.path not in {rules.SETTINGS, rules.PLUGINS}:
        if rules.is_json(file.path):
            json_file.parsed(file.body, file.path)
        return Leaf(file.body, file.executable)
    portable = settings_file.portable(settings_file.read(file.body), _NOWHERE)
    refused += [Refusal(file.path, one.reason, key=one.key) for one in portable.stays]
    return settings_file.leaves_of(portable).get(file.path)
