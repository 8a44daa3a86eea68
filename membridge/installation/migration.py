"""Moves from claude-mem-minio to Membridge: imports its settings, and reports what was found and done.

Its own files stay as they are. The memory that it stored is imported by the first pull; the command does that.
"""

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path

import membridge
from membridge.access import join_config
from membridge.access.join_config import JoinConfig
from membridge.installation import old_tool
from membridge.settings import Settings, locations
from membridge.settings.sources import read
from membridge.system import clock, files
from schemas.identity import canonical_id
from schemas.wire import Wire, encode

REPORT = "migration-report.json"
HEADING = "# Written by `membridge migrate` from ~/.claude-mem-minio/config.env, which wins as long as it exists."
#: What no mode of the installer ever writes; the database is only written by push and pull.
UNTOUCHED = (
    "~/.claude-mem/", "~/.claude/.credentials.json", "~/.claude/auth.json", "~/.claude/settings.local.json",
    "~/.claude-mem-minio/config.env", "~/.claude-mem-minio/bin/",
)  # fmt: skip


class Remote(StrEnum):
    """What became of the memory that the old tool had stored."""

    IMPORTED = "imported"
    #: The project has snapshots: the first of them took in what the old tool had stored.
    SHARED = "shared already"
    NOTHING = "nothing"
    NOT_YET = "not yet"


class Found(Wire, frozen=True, kw_only=True):
    """One thing of the old tool."""

    kind: str
    path: str
    detail: str


class ImportedSetting(Wire, frozen=True, kw_only=True):
    """A setting of the old tool; a secret's value is never shown."""

    key: str
    name: str
    written: bool


class MigrationReport(Wire, frozen=True, kw_only=True):
    """What `membridge migrate` found and did."""

    generated_at: str
    version: str
    node: str
    project: str
    found: list[Found]
    settings: list[ImportedSetting]
    config: str
    remote: Remote
    remote_detail: str
    untouched: list[str]
    next: list[str]
    rollback: list[str]
    report: str


def found(home: Path, environ: Mapping[str, str], root: Path) -> list[Found]:
    """Return what the old tool left. Blocking."""
    return [Found(kind=one.kind, path=str(one.path), detail=one.detail) for one in old_tool.detect(home, environ, root)]


def import_settings(
    settings: Settings, environ: Mapping[str, str], home: Path, *, write: bool
) -> list[ImportedSetting]:
    """Write the old tool's settings to `config.toml`, if there is none; return them. Blocking.

    An existing `config.toml` is a person's own and stays: the old file is read after it, so nothing is lost.
    """
    where = locations(environ, home)
    names = {item.key: item.declared.env for item in settings.table}
    old = [key for key, origin in settings.origins.items() if origin == str(where.legacy)]
    absent = read(where.config) is None
    if write and absent and old:
        groups: dict[str, dict[str, str | list[str]]] = {}
        for item in settings.table:
            if item.key in old:
                groups.setdefault(item.group, {})[item.field] = _written(settings.value(item))
        files.save(where.config, join_config.render(JoinConfig(groups), HEADING).encode())
    return [ImportedSetting(key=key, name=names[key], written=absent) for key in old]


def _written(value: object) -> str | list[str]:
    reveal = getattr(value, "reveal", None)
    if reveal is not None:
        return str(reveal())
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return [str(one) for one in value]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return str(value)


def report(
    settings: Settings, things: list[Found], imported: list[ImportedSetting], remote: Remote, detail: str, home: Path
) -> MigrationReport:
    """Return the report, with what is left for the person to do."""
    return MigrationReport(
        generated_at=clock.now().isoformat(),
        version=membridge.__version__,
        node=settings.node.id,
        project=settings.project.name,
        found=things,
        settings=imported,
        config=str(settings.node.config_dir / "config.toml"),
        remote=remote,
        remote_detail=detail,
        untouched=list(UNTOUCHED),
        next=_next(settings, things, remote, home),
        rollback=[
            "nothing of the old tool was changed: it works as before",
            "sh install.sh uninstall removes Membridge and keeps the memory",
            "start what `next` stopped again with the same commands, enable instead of disable",
        ],
        report=str(settings.node.state_dir / REPORT),
    )


def save(settings: Settings, made: MigrationReport) -> None:
    """Write the report beside the node's state. Blocking; raises DiskFullError and FileAccessError."""
    files.save(settings.node.state_dir / REPORT, encode(made) + b"\n")


def wrong_id(home: Path, name: str) -> str | None:
    """Return why the stored memory is not found, if the old settings pin another id than the project's name gives."""
    pinned = old_tool.pinned_id(home)
    if pinned is None or pinned == canonical_id(name):
        return None
    return (
        f"the old settings pin the id {pinned}, and the project {name!r} has the id {canonical_id(name)}: "
        "set CLAUDE_PROJECT_ID to the name that the project had when the id was pinned"
    )


def _next(settings: Settings, things: list[Found], remote: Remote, home: Path) -> list[str]:
    steps = [thing.detail for thing in things if thing.kind == "service"]
    if any(thing.kind == "hook" for thing in things):
        steps.append("membridge install hooks")
    if remote is Remote.NOT_YET:
        steps.append("membridge pull")
    others = [name for name in old_tool.projects(home) if name != settings.project.name]
    return [*steps, *(f"membridge project add {name} --database PATH" for name in others), "membridge push"]
