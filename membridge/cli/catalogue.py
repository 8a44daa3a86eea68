"""Every command of `membridge` but those of services: its name, where it is defined, and its line in the help.

Reading this table loads no command, so that `membridge --help` answers at once.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Entry:
    """One command: `module:attribute`, and what it does in a line."""

    target: str
    summary: str


COMMANDS: dict[str, Entry] = {
    "up": Entry("membridge.cli.up:up_command", "Run everything on this machine, bundled server included."),
    "node": Entry("membridge.cli.node:node_command", "Run this machine's daemon in the foreground."),
    "demo": Entry("membridge.cli.demo:demo_command", "Show two machines sharing one memory, under a minute."),
    "status": Entry("membridge.cli.state:status", "Show what this node knows of a project."),
    "push": Entry("membridge.cli.lane:push", "Send this machine's memory to the others."),
    "pull": Entry("membridge.cli.lane:pull", "Take in what the other machines know."),
    "nodes": Entry("membridge.cli.state:nodes_group", "List the machines that are present, or cut one off."),
    "invite": Entry("membridge.cli.access:invite", "Print one line that lets one more machine join."),
    "join": Entry("membridge.cli.access:join", "Join the memory that an invitation is for."),
    "jobs": Entry("membridge.cli.state:jobs", "List pushes and pulls and how they ended."),
    "history": Entry("membridge.cli.past:history", "List committed snapshots."),
    "tag": Entry("membridge.cli.past:tag", "Name a snapshot, so that it is kept for ever."),
    "diff": Entry("membridge.cli.diff:diff", "Show which memories came, went and changed in between."),
    "restore": Entry("membridge.cli.restore:restore", "Bring an earlier state back, as a file or as the memory."),
    "verify": Entry("membridge.cli.verify:verify", "Check that all that is kept can be restored."),
    "gc": Entry("membridge.cli.gc:gc", "Delete the snapshots that are no longer kept."),
    "recover": Entry("membridge.cli.recover:recover", "Rebuild the head after NATS or the store lost it."),
    "backups": Entry("membridge.cli.journal:backups", "List backups taken before writes, or put one back."),
    "conflicts": Entry("membridge.cli.journal:conflicts", "List rows that two machines changed differently."),
    "quarantine": Entry("membridge.cli.quarantine:quarantine", "List, retry or drop what could not be taken in."),
    "leader": Entry("membridge.cli.leader:leader", "Show or change which node is primary."),
    "project": Entry("membridge.cli.project:project", "List, add or remove the projects of this node."),
    "doctor": Entry("membridge.cli.doctor:doctor", "Check everything this node needs and say what to do."),
    "task": Entry("membridge.cli.task:task", "Submit LLM tasks, follow them, read their results."),
    "worker": Entry("membridge.cli.worker:worker", "List the workers that run tasks, drain or resume one."),
    "artifact": Entry("membridge.cli.worker:artifact", "List or read what tasks made."),
    "key": Entry("membridge.cli.key:key", "Make, rotate and show keys of encryption; seal objects."),
    "nats-context": Entry("membridge.cli.nats_context:nats_context", "Let the stock `nats` CLI in as operator."),
    "units": Entry("membridge.cli.systemd:units", "List, print or write the systemd units."),
    "config": Entry("membridge.cli.config:config", "Show settings and where each comes from."),
    "push_sqlite": Entry("membridge.cli.lane:push_sqlite", "The old tool's name of `push --snapshot`."),
    "pull_sqlite": Entry("membridge.cli.lane:pull_sqlite", "The old tool's name of `pull --replace`."),
}
