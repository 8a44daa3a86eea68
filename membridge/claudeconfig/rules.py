"""What of a configuration folder may travel: an allow list of paths and of settings keys. All else stays.

Pure. The same rules hold for what this machine sends and for what it receives, so that a path from elsewhere can
escape nothing, and a file that a newer Claude Code invents stays where it is.
"""

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

FILES = frozenset({"CLAUDE.md", "keybindings.json", "loop.md"})
FOLDERS = frozenset({
    "rules", "commands", "agents", "skills", "output-styles", "workflows", "routines", "themes", "agent-memory",
    "hooks", "bin",
})  # fmt: skip
#: Folders that travel on request. `memory` is no folder of Claude Code: auto memory by repository.
PLANS, MEMORY = "plans", "memory"
#: Not files but documents made from settings.json: its portable keys; and the plugins that should be there.
SETTINGS, PLUGINS = "settings.json", "plugins.json"

#: Settings that mean the same on each machine. `permissions` is not here: see PERMISSIONS.
KEYS = frozenset({
    "$schema", "model", "availableModels", "outputStyle", "language", "theme", "editorMode", "effortLevel",
    "alwaysThinkingEnabled", "includeCoAuthoredBy", "attribution", "cleanupPeriodDays", "respectGitignore",
    "spinnerTipsEnabled", "spinnerVerbs", "spinnerTipsOverride", "showTurnDuration", "prefersReducedMotion",
    "terminalProgressBarEnabled", "autoUpdatesChannel", "companyAnnouncements", "teammateMode", "fastMode",
})  # fmt: skip
#: What narrows permissions; what grants any is a decision for one machine.
PERMISSIONS = frozenset({"deny", "ask"})
#: Settings that run a command.
RUNNING = frozenset({"hooks", "statusLine"})
INTENT = frozenset({"enabledPlugins", "extraKnownMarketplaces"})

#: Names that stay inside folders that travel.
_LEFT = frozenset({"node_modules", "__pycache__", "venv", "Thumbs.db", "desktop.ini"})
#: What a conflict leaves beside a file; it never travels.
BESIDE = ".theirs-"
#: Longest path, longest name of it in bytes, and most names.
MOST_PATH, MOST_NAME, MOST_DEPTH = 512, 200, 16
#: Devices of Windows, which no file may be called there.
_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
_FORBIDDEN = re.compile(r'[\x00-\x1f\x7f<>:"|?*\\]')

#: Endings of programs, whatever their permissions say.
_PROGRAMS = (
    ".sh", ".bash", ".zsh", ".fish", ".ps1", ".bat", ".cmd", ".py", ".js", ".mjs", ".cjs", ".ts", ".mts", ".cts", ".rb",
    ".pl", ".php", ".lua", ".go", ".rs", ".applescript", ".command",
)  # fmt: skip
_SHELLS = (".sh", ".bash", ".zsh", ".fish", ".command")
#: In Markdown of commands, skills and agents: a line that Claude Code runs, and settings that run or grant something.
_INLINE = re.compile(r"!`|^```!", re.MULTILINE)
_FRONT = re.compile(r"\A---\s*\n(.*?)\n---", re.DOTALL)
_GRANTS = re.compile(
    r"^\s*[\"']?(hooks|mcpServers|allowed-tools|allowedTools|tools|permissionMode)[\"']?\s*:", re.MULTILINE
)
#: Files that hold keys, whatever is in them.
_CREDENTIAL = re.compile(
    r"(\.?credentials(\..*)?|.*\.(pem|key|p12|pfx|keystore|jks|kdbx)|id_(rsa|dsa|ecdsa|ed25519))", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Requested:
    """What travels only on request."""

    memory: bool = False
    plans: bool = False


def why_not(path: str, requested: Requested | None = None) -> str | None:
    """Return why a file of this path may not travel, None if it may. Without `requested` everything is requested."""
    names = path.split("/")
    reason = _why_no_path(path, names)
    if reason is not None:
        return reason
    wanted = requested or Requested(memory=True, plans=True)
    top = names[0]
    if len(names) == 1:
        return None if top in FILES or top in {SETTINGS, PLUGINS} else "it is not on the list of what travels"
    if top in {PLANS, MEMORY}:
        asked = wanted.plans if top == PLANS else wanted.memory
        if not asked:
            return f"it travels only with --{top}"
        return None if names[-1].endswith(".md") else "only Markdown of this folder travels"
    return None if top in FOLDERS else "it is not on the list of what travels"


def why_left(name: str) -> str | None:
    """Return why a file or folder of this name stays on its machine wherever it is, None if it does not."""
    if name.startswith("."):
        return "its name begins with a dot"
    if name in _LEFT:
        return "it is made by a program on each machine"
    if BESIDE in name or name.endswith((".part", "~", ".pyc")):
        return "it is a leftover"
    return None


def _why_no_path(path: str, names: list[str]) -> str | None:
    """Return why no file on any machine may have this path."""
    try:
        long = any(len(name.encode()) > MOST_NAME for name in names)
    except UnicodeEncodeError:
        return "its name is not UTF-8"
    faults = (
        (_FORBIDDEN.search(path), "its name has a character that not every system allows"),
        (path.startswith("/") or not all(names) or {".", ".."} & set(names), "its path leaves the folder"),
        (unicodedata.normalize("NFC", path) != path, "its name is not in the normal form NFC"),
        (long or len(path) > MOST_PATH or len(names) > MOST_DEPTH, "its path is too long"),
        (
            any(map(_is_device, names)),
            "Windows does not allow its name",
        ),
        (_CREDENTIAL.fullmatch(names[-1]), "its name is that of a credential"),
    )
    reason = next((reason for fault, reason in faults if fault), None)
    return reason or next((left for name in names if (left := why_left(name))), None)


def _is_device(name: str) -> bool:
    return bool(_DEVICE.fullmatch(name)) or name != name.rstrip(". ")


def colliding(paths: Iterable[str]) -> dict[str, str]:
    """Return paths that a system without upper and lower case takes for one, each with another one of them."""
    spelled: dict[str, set[str]] = {}
    for path in (known := list(paths)):
        for part in _parts(path):
            spelled.setdefault(part.casefold(), set()).add(part)
    found: dict[str, str] = {}
    for path in known:
        # A folder counts too: `Skills/a` and `skills/b` are in one folder there.
        others = [sorted(spelled[part.casefold()] - {part}) for part in _parts(path)]
        other = next((one[0] for one in others if one), None)
        if other is not None:
            found[path] = other
    return found


def _parts(path: str) -> list[str]:
    names = path.split("/")
    return ["/".join(names[: depth + 1]) for depth in range(len(names))]


def is_program(path: str, text: str, *, marked: bool) -> bool:
    """Return whether pulling this file can run code: a script, or Markdown that runs or grants something.

    `marked` says that its permissions call it executable.
    """
    top, name = path.partition("/")[0], path.rpartition("/")[2].lower()
    if marked or top in {"hooks", "bin"} or name.endswith(_PROGRAMS) or text.startswith("#!"):
        return True
    if top not in {"commands", "skills", "agents", "workflows", "routines"}:
        return False
    front = _FRONT.match(text)
    return bool(_INLINE.search(text) or (front and _GRANTS.search(front[1])))


def is_shell(path: str, text: str) -> bool:
    """Return whether a shell runs this file, so that it replaces `$HOME`."""
    first = text.split("\n", 1)[0]
    return path.lower().endswith(_SHELLS) or bool(re.match(r"#!.*\b(ba|da|z|k|fi)?sh\b", first))


def is_json(path: str) -> bool:
    """Return whether a file is merged by key."""
    return path in {SETTINGS, PLUGINS, "keybindings.json"} or (path.startswith("themes/") and path.endswith(".json"))


def is_list(path: str) -> bool:
    """Return whether a file is merged as a list of entries: the index of an auto memory."""
    return path.startswith(f"{MEMORY}/") and path.endswith("/MEMORY.md")


def runs(path: str, key: str) -> bool:
    """Return whether a key of a document runs code where it is pulled."""
    return (path == SETTINGS and key in RUNNING) or path == PLUGINS
