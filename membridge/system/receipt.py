"""The receipt: what `install.sh` wrote and enabled, a line each of KIND, VALUE and PATH with tabs between them.

The script appends a line before it acts. So a path may be listed that was never written, and a file may have several
checksums: the newest, and that of the version before, if the script was killed between the two steps.
"""

import os
import shlex
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from membridge.errors import UnsupportedFormatError
from membridge.system import files

RECEIPT = "receipt"
#: The first line of a receipt that this version reads.
HEADER = ("membridge-receipt", "1")


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was installed: `facts` are the newest values of role, scope, init, version and source."""

    path: Path
    facts: Mapping[str, str]
    #: Checksums by file; the last one is the newest.
    files: Mapping[Path, tuple[str, ...]]
    links: tuple[Path, ...]
    #: The services that were enabled, each with the init that runs it.
    services: tuple[tuple[str, str], ...]

    @property
    def prefix(self) -> Path:
        """The folder of the installation."""
        return self.path.parent

    @property
    def current(self) -> Path:
        """The link to the environment that runs."""
        return self.prefix / "current"

    @property
    def script(self) -> Path:
        """The installer's copy of itself."""
        return self.prefix / "install.sh"

    @property
    def role(self) -> str:
        """What was installed: `node`, `server` or `all`."""
        return self.facts.get("role", "node")

    @property
    def scope(self) -> str:
        """For whom it was installed: `user` or `system`."""
        return self.facts.get("scope", "user")

    def command(self, mode: str, *more: str) -> list[str]:
        """Return the installer's command for this installation: `mode` is its role, or what the script does with it."""
        return ["sh", str(self.script), mode, f"--{self.scope}", "--prefix", str(self.prefix), *more]

    def line(self, mode: str) -> str:
        """Return `command` as a line for the shell of the user who runs this: with `sudo` where it needs root."""
        root = ["sudo"] if self.scope == "system" and os.geteuid() != 0 else []
        return shlex.join([*root, *self.command(mode)])


def find() -> Receipt | None:
    """Return the receipt of the installation that this interpreter belongs to, None if another tool installed it."""
    environment = Path(sys.prefix).resolve()
    if environment.parent.name != "versions":
        return None
    return read(environment.parents[1] / RECEIPT)


def note_hooks(plugin: Path, state: Path) -> None:
    """Note in this installation's receipt that it installs the hooks in `plugin`, so that its removal takes them.

    `state` has the record of what they changed. Without effect for another tool's installation, and for one whose
    receipt only root may change. Blocking.
    """
    found = find()
    if found is None or {"\t", "\n"} & {*str(plugin), *str(state)}:
        return
    line = f"hooks\t{state}\t{plugin}\n".encode(errors="surrogateescape")
    with suppress(PermissionError), found.path.open("rb+") as file:
        if line not in file.readlines():
            file.write(line)


def read(path: Path) -> Receipt | None:
    """Return the receipt in a file, None if there is none. Raises UnsupportedFormatError for one of a newer format."""
    with files.translated(path):
        try:
            text = path.read_text("utf-8", "surrogateescape")
        except FileNotFoundError:
            return None
    lines = [line.split("\t", 2) for line in text.splitlines()]
    if not lines or tuple(lines[0][:2]) != HEADER:
        raise UnsupportedFormatError(
            f"{path} is not a receipt of this version's installer", remedy="run the newest install.sh again"
        )
    return _receipt(path, [line for line in lines[1:] if len(line) == 3])


def _receipt(path: Path, lines: Iterable[list[str]]) -> Receipt:
    facts: dict[str, str] = {}
    sums: defaultdict[Path, list[str]] = defaultdict(list)
    links: dict[Path, None] = {}
    services: dict[tuple[str, str], None] = {}
    for kind, value, name in lines:
        match kind:
            case "file":
                sums[Path(name)].append(value)
            case "link":
                links[Path(name)] = None
            case "enabled":
                services[value, name] = None
            case "role" | "scope" | "init" | "version" | "source":
                facts[kind] = value
            case _:
                pass
    return Receipt(path, facts, {file: tuple(found) for file, found in sums.items()}, tuple(links), tuple(services))
