"""Absolute paths of one machine, made portable where a program will make them absolute again. Pure.

The home folder becomes `$HOME` where a shell or a reader replaces it: in shell scripts, in commands of hooks and in
prose. A Python script or a JSON value would take it literally, so there it is refused.
"""

import re
from dataclasses import dataclass

#: Where a machine keeps people's homes: a path like this in a file means nothing elsewhere.
FOREIGN = re.compile(r"(?<![\w.$}-])(?:/home/|/Users/|[A-Za-z]:[\\/]Users[\\/])[\w.-]+")
#: The system's own folders, the same on each machine.
_SYSTEM = ("/bin/", "/usr/bin/", "/dev/", "/etc/", "/proc/", "/usr/lib/", "/sbin/")
_ABSOLUTE = re.compile(r"(?<![\w$}:./~-])/[\w.@+-]+(?:/[\w.@+-]*)*")


@dataclass(frozen=True, slots=True)
class Homes:
    """This machine's home and its configuration folder, as absolute paths with `/`."""

    home: str
    config: str

    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Return what is replaced by what, the longest first."""
        pairs = [(self.home, "$HOME")]
        if self.config != f"{self.home}/.claude":
            pairs.append((self.config, "${CLAUDE_CONFIG_DIR:-$HOME/.claude}"))
        return tuple(sorted(pairs, key=lambda pair: -len(pair[0])))


@dataclass(frozen=True, slots=True)
class Portable:
    """A text for other machines: the lines that were rewritten, and those that name another absolute home."""

    text: str
    rewritten: tuple[int, ...] = ()
    foreign: tuple[int, ...] = ()


def first_own(text: str, homes: Homes) -> int | None:
    """Return the first line that names this machine's home, None if none does."""
    own = _own(homes)
    return next((number for number, line in _lines(text) if own.search(line)), None)


def portable(text: str, homes: Homes) -> Portable:
    """Return `text` with this machine's home as `$HOME`."""
    names = dict(homes.pairs())
    rewritten = tuple(number for number, line in _lines(text) if _own(homes).search(line))
    changed = _own(homes).sub(lambda found: names[found[0]], text)
    foreign = tuple(number for number, line in _lines(changed) if FOREIGN.search(line))
    return Portable(changed, rewritten, foreign)


def quoted(text: str, homes: Homes) -> int | None:
    """Return the first line that names the home inside single quotes, where no shell replaces `$HOME`."""
    for number, line in _lines(text):
        for found in _own(homes).finditer(line):
            if line[: found.start()].count("'") % 2:
                return number
    return None


def is_elsewhere(command: str) -> str | None:
    """Return the first absolute path of a portable command that other machines need not have, None without one."""
    for found in _ABSOLUTE.finditer(command):
        if not found[0].startswith(_SYSTEM):
            return found[0]
    found = FOREIGN.search(command) or re.search(r"(?<![A-Za-z])[A-Za-z]:[\\/]", command)
    return found[0] if found else None


def names_home_outside(command: str) -> bool:
    """Return whether a portable command names a file in the home but outside the configuration folder."""
    bare = command.replace("${CLAUDE_CONFIG_DIR:-$HOME/.claude}", "")
    return bool(re.search(r"(\$HOME|\$\{HOME\}|~)/(?!\.claude(/|\b))", bare))


def _own(homes: Homes) -> re.Pattern[str]:
    folders = "|".join(re.escape(folder) for folder, _ in homes.pairs() if folder not in {"", "/"})
    # Not as the beginning of a longer name, and not below another folder.
    return re.compile(rf"(?<![\w.$}}-])(?:{folders})(?![\w.-]*[\w-])" if folders else r"(?!)")


def _lines(text: str) -> list[tuple[int, str]]:
    return list(enumerate(text.splitlines(), start=1))
