"""Every command of `membridge` but those of services: its name, where it is defined, and its line in the help.

Reading this table loads no command, so that `membridge --help` answers at once.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Entry:
    """One command: `module:attribute`, and what it does in a line."""

    target: str
    summary: str


#: Commands that run on Windows, where no node is: they ask a server, or a node elsewhere. `tests/windows` runs them.
ON_WINDOWS = frozenset(
    {
        "api-key", "artifact", "config", "doctor", "jobs", "join", "key", "leader", "nats-context", "nodes", "pull",
        "push", "task", "validate", "worker",
    }
)  # fmt: skip
COMMANDS: dict[str, Entry] = {
    "up": Entry("membridge.cli.up:up_command", "Run everything on this machine, the bundled server included."),
    "node": Entry("membridge.cli.node:node_command", "Run this machine's daemon in the foreground."),
    "demo": Entry("membridge.cli.demo:demo_command", "Watch two nodes share one memory, in under a minute."),
    "status": Entry("membridge.cli.state:status", "Show what this node knows of a project."),
    "push": Entry("membridge.cli.lane:push", "Send this machine's memory to the other machines."),
    "pull": Entry("membridge.cli.lane:pull", "Merge what the other machines know."),
    "nodes": Entry("membridge.cli.state:nodes_group", "List machines; let a front end in, or cut a machine off."),
    "invite": Entry("membridge.cli.access:invite", "Print a line that lets one more machine join."),
    "join": Entry("membridge.cli.access:join", "Join the memory that an invitation is for."),
    "jobs": Entry("membridge.cli.state:jobs", "List pushes, pulls and other jobs, and how they ended."),
    "history": Entry("membridge.cli.history:history", "List snapshots, newest first."),
    "tag": Entry("membridge.cli.history:tag", "Name a snapshot, which is then kept for ever."),
    "diff": Entry("membridge.cli.history:diff", "Show which rows differ between two snapshots."),
    "restore": Entry("membridge.cli.restore:restore", "Bring an earlier state back, as a file or as the memory."),
    "verify": Entry("membridge.cli.maintenance:verify", "Check that every kept snapshot can be restored."),
    "gc": Entry("membridge.cli.maintenance:gc", "Delete expired snapshots and abandoned uploads."),
    "recover": Entry("membridge.cli.maintenance:recover", "Rebuild the head after NATS or the object store lost data."),
    "backups": Entry("membridge.cli.restore:backups", "List the backups of this machine's database, or restore one."),
    "conflicts": Entry("membridge.cli.set_aside:conflicts", "List rows that two machines changed differently."),
    "quarantine": Entry("membridge.cli.set_aside:quarantine", "List, retry or drop what could not be merged."),
    "leader": Entry("membridge.cli.leader:leader", "Show or change which node is primary."),
    "project": Entry("membridge.cli.project:project", "List, add or remove the projects of this node."),
    "doctor": Entry("membridge.cli.state:doctor", "Check everything that this node needs, and say what to do."),
    "task": Entry("membridge.cli.task:task", "Submit LLM tasks, follow them, read their results."),
    "worker": Entry("membridge.cli.worker:worker", "List, drain, resume or remove the workers that run tasks."),
    "artifact": Entry("membridge.cli.worker:artifact", "List or read the artifacts of tasks."),
    "key": Entry("membridge.cli.key:key", "Make, rotate and show encryption keys; encrypt old objects."),
    "api-key": Entry("membridge.cli.api_key:api_key", "Make, list and revoke the keys of front ends that use HTTP."),
    "claude-config": Entry(
        "membridge.cli.claude_config:claude_config", "Share Claude Code's own configuration between machines."
    ),
    "nats-context": Entry(
        "membridge.cli.nats_context:nats_context", "Write a context for the stock `nats` command line."
    ),
    "units": Entry("membridge.cli.systemd:units", "List, print or write units for systemd, OpenRC or launchd."),
    "install": Entry("membridge.cli.hooks:install", "Install the hooks into Claude Code."),
    "uninstall": Entry("membridge.cli.hooks:uninstall", "Remove the hooks from Claude Code."),
    "validate": Entry("membridge.cli.installation:validate", "Check this installation: files, services, versions."),
    "upgrade": Entry("membridge.cli.installation:upgrade", "Install the newest version, and go back if it fails."),
    "migrate": Entry("membridge.cli.migrate:migrate", "Import what claude-mem-minio left on this machine."),
    "config": Entry("membridge.cli.config:config", "Show the settings, and where each comes from."),
    "push_sqlite": Entry("membridge.cli.lane:push_sqlite", "The old tool's name for `push --snapshot`."),
    "pull_sqlite": Entry("membridge.cli.lane:pull_sqlite", "The old tool's name for `pull --replace`."),
}
