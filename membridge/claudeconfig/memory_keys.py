"""The name under which an auto memory travels: the repository that it belongs to, the same for each clone. Pure."""

import re

from membridge.claudeconfig import rules

_URL = re.compile(r"(?:https?|ssh|git|git\+ssh)://(?:[^@/\s]+@)?(?P<host>[\w.-]+)(?::\d+)?/(?P<path>[^\s?#]+)")
_SCP = re.compile(r"(?:[\w.-]+@)?(?P<host>[\w-]+(?:\.[\w-]+)+):(?!/?/)(?P<path>[^\s?#]+)")
_ALIAS = re.compile(r"[A-Za-z0-9_-]{1,64}")
#: Below it are the aliases; no host has this name.
ALIAS = "alias"
#: Letters of a project's folder that Claude Code does not cut (read in 2.1.329 and in versions before 2.1.287).
MOST_FOLDER = 200


def of_remote(url: str) -> str | None:
    """Return `memory/HOST/OWNER/NAME` of a git remote, None for one that only this machine knows, such as a folder."""
    found = _URL.fullmatch(url.strip()) or _SCP.fullmatch(url.strip())
    if found is None:
        return None
    # Hosts of repositories do not tell upper from lower case.
    name = found["path"].strip("/").removesuffix(".git").lower()
    return _checked(f"{found['host'].lower()}/{name}")


def of_alias(name: str) -> str | None:
    """Return `memory/alias/NAME`, None for a name that is not allowed."""
    return _checked(f"{ALIAS}/{name}") if _ALIAS.fullmatch(name) else None


def folder_name(path: str) -> tuple[str, bool]:
    """Return how Claude Code calls the folder of a project at `path`, and whether that is all of the name.

    A long one is cut, and ends in a sum of the path that only Claude Code computes.
    """
    name = re.sub(r"[^A-Za-z0-9]", "-", path)
    return (name, True) if len(name) <= MOST_FOLDER else (f"{name[:MOST_FOLDER]}-", False)


def _checked(key: str) -> str | None:
    whole = f"{rules.MEMORY}/{key}"
    return whole if rules.why_not(f"{whole}/MEMORY.md") is None else None
