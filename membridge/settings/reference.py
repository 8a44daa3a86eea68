"""The table of settings as people read it: the lines of `membridge config show` and the reference page."""

from dataclasses import dataclass

from membridge.settings.kinds import MASK, show
from membridge.settings.loading import Settings, all_groups
from membridge.settings.table import Setting, table_of

_HEAD = """\
# Configuration

Every setting, from `membridge/settings/groups.py` and the `settings.py` of each service. This page is written by
`membridge config reference`.

A value comes from, later wins:

1. the default,
2. `~/.config/membridge/enrolled.toml` (`$XDG_CONFIG_HOME`; on Windows `%APPDATA%\\Membridge\\enrolled.toml`), written
   by `membridge join` and `membridge up --listen`,
3. `config.toml` beside it, where `[group]` and `field` are the two halves of a key,
4. `~/.claude-mem-minio/config.env`, the file of claude-mem-minio: `NAME=value` lines, read and never executed,
5. the credentials that a unit's `LoadCredential=VARIABLE:FILE` brings: the file itself for a setting that names a file,
   else its text,
6. the environment.

An empty value counts as not set. A flag is 1, 0, true, false, yes, no, on or off. A path is absolute or starts with
`~/`. `membridge config show` prints each value with where it came from; secrets are masked.

Two sections were renamed: `[executor]` is `[worker]` now, and `[worker]` with its keys `no_restart`,
`allow_process_control` and `dryrun` is `[claude_mem]`. `config.toml` may still use the old names; a warning says what
to write. The variables kept their names.
"""

_PROJECTS = """\
## projects

Further projects of this node, each with its own database, only in `config.toml`:

```toml
[[projects]]
name = "work"
database = "~/work/.claude-mem/claude-mem.db"
folders = ["~/work"]
```

`folders` may be left out. A Claude Code session in one of them belongs to that project, if its hooks name no project.
Any other session belongs to the project of `[project]`.
"""


@dataclass(frozen=True, slots=True)
class Shown:
    """One setting as `config show` prints it."""

    key: str
    value: str
    origin: str
    env: str
    unit: str
    meaning: str = ""


def shown(settings: Settings) -> list[Shown]:
    """Return every setting with its value and where that came from, secrets masked."""
    lines = [
        Shown(
            item.key,
            show(settings.value(item)),
            settings.origins[item.key],
            item.declared.env,
            item.declared.unit,
            item.declared.meaning,
        )
        for item in settings.table
    ]
    for index, project in enumerate(settings.projects[1:]):
        origin = str(settings.node.config_dir / "config.toml")
        lines.append(Shown(f"projects[{index}].name", project.name, origin, "", ""))
        lines.append(Shown(f"projects[{index}].database", str(project.database), origin, "", ""))
    return lines


def render_reference() -> str:
    """Return `docs/reference/configuration.md`."""
    parts = [_HEAD]
    for group, kind in all_groups().items():
        parts.append(f"## {group}\n\n{kind.__doc__}\n")
        parts.extend(_entry(item) for item in table_of({group: kind}))
        if group == "project":
            parts.append(_PROJECTS)
    return "\n".join(parts)


def _entry(item: Setting) -> str:
    declared = item.declared
    facts = [f"- Environment: `{declared.env}`"]
    if not declared.in_file:
        facts.append("- Only from the environment")
    unit = f" ({declared.unit})" if declared.unit else ""
    facts.append(f"- Allowed: {declared.kind.allowed}{unit}")
    facts.append(f"- Default: {_default(item)}")
    if declared.off:
        facts.append(f"- Off: `{declared.off}`")
    if declared.kind.secret:
        facts.append(f"- Secret: shown as `{MASK}`")
    return f"### {item.key}\n\n{declared.meaning}\n\n" + "\n".join(facts) + "\n"


def _default(item: Setting) -> str:
    if item.declared.derived:
        return item.declared.derived
    return f"`{item.default_text}`" if item.default_text else "not set"
