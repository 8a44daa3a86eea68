"""Which version of Claude Code is installed, and what that version can do."""

import re
import subprocess
from typing import NamedTuple

_VERSION = re.compile(r"(\d{1,6})\.(\d{1,6})\.(\d{1,6})")
#: Seconds that `claude --version` may take: its first start after an update reads 250 MB.
SECONDS = 20


class Version(NamedTuple):
    """A version of Claude Code, comparable."""

    major: int
    minor: int
    patch: int

    def __str__(self) -> str:
        """Return it as Claude Code writes it."""
        return f"{self.major}.{self.minor}.{self.patch}"


#: Loads a plugin from a folder below `skills/`; an older one needs the hooks in settings.json.
LOADS_FOLDERS = Version(2, 1, 157)
#: Loads the plugin's in-process module, which is done before any other hook of a session start begins.
LOADS_MODULES = Version(2, 1, 287)


def parse(text: str) -> Version | None:
    """Return the version in `text`, the output of `claude --version` among others; None without one."""
    found = _VERSION.search(text)
    return Version(*map(int, found.groups())) if found else None


def installed(program: str) -> Version | None:
    """Ask `program` for its version; None when it is not installed or does not say. Blocking."""
    try:
        asked = subprocess.run(  # noqa: S603 - the user's own `claude`
            [program, "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, encoding="utf-8",
            errors="replace", timeout=SECONDS, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return None
    return parse(asked.stdout) if asked.returncode == 0 else None
