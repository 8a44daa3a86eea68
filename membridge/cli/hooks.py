"""`membridge install hooks` and `membridge uninstall hooks`: the plugin of Claude Code, on this machine."""

from pathlib import Path

import click

from membridge.claudecode import installation, version
from membridge.claudecode.place import Place
from membridge.claudecode.plugin import SHIPPED, Reach
from membridge.cli.command import Invocation, command
from membridge.hooks.paths import hook_paths, make_spool
from membridge.system import pidfile, receipt
from schemas.subjects import Impact
from schemas.wire import Wire


class InstalledReply(Wire, frozen=True, kw_only=True):
    """Where the plugin is, for which version, and what happened to the settings of Claude Code."""

    plugin: str
    #: The version of Claude Code, empty when it did not say.
    version: str
    settings: str
    changed_settings: bool
    old_hooks: list[str]
    replaced_old: bool


class RemovedReply(Wire, frozen=True, kw_only=True):
    """Whether there were hooks, and what was left where it is."""

    plugin: str
    removed: bool
    foreign: list[str]
    backup: str | None = None


@command("hooks", impact=Impact.WRITE)
@click.option("--replace-old", is_flag=True, help="Remove the hooks of claude-mem-minio from settings.json.")
def install_hooks(invocation: Invocation, *, replace_old: bool) -> None:
    """Install the hooks into Claude Code.

    They are a plugin in a folder of its own; the next session that starts uses it. --project NAME is the project of
    sessions whose environment has no CLAUDE_PROJECT_ID. Run it again after an update, and after a change of
    `hooks.wait_seconds` or of the state folder.
    """
    settings, place = invocation.settings, Place.of_user(invocation.settings.node.state_dir)
    paths = hook_paths(settings.node.state_dir)
    reach = Reach(
        spool=paths.spool,
        run=paths.run,
        wait_seconds=settings.hooks.wait_seconds,
        project=invocation.project_name or "",
    )
    found = version.installed(settings.worker.claude)
    into_settings = found is not None and found < version.LOADS_FOLDERS
    receipt.note_hooks(place.plugin, place.state)
    done = installation.install(place, SHIPPED, reach, into_settings=into_settings, replace_old=replace_old)
    make_spool(paths)
    reply = InstalledReply(
        plugin=str(place.plugin),
        version=str(found or ""),
        settings=str(place.settings),
        changed_settings=done.changed_settings,
        old_hooks=list(done.old_hooks),
        replaced_old=replace_old,
    )
    invocation.show(reply, _print_installed)


@command("hooks", impact=Impact.WRITE)
def uninstall_hooks(invocation: Invocation) -> None:
    """Remove the hooks from Claude Code.

    Events that wait in the spool stay for the daemon.
    """
    state = invocation.settings.node.state_dir
    place = Place.of_user(state)
    done = installation.uninstall(place, SHIPPED, spool=None if _daemon_runs(state) else hook_paths(state).spool)
    reply = RemovedReply(
        plugin=str(place.plugin),
        removed=done.was_there,
        foreign=[str(path) for path in done.foreign],
        backup=None if done.backup is None else str(done.backup),
    )
    invocation.show(reply, _print_removed)


install = click.Group("install", commands=[install_hooks], help="Install the hooks into Claude Code.")
uninstall = click.Group("uninstall", commands=[uninstall_hooks], help="Remove the hooks from Claude Code.")


def _daemon_runs(state: Path) -> bool:
    return any(pidfile.holder(state, kind) for kind in ("node", "up"))


def _print_installed(reply: InstalledReply) -> None:
    click.echo(f"Installed: {reply.plugin}")
    if not reply.version:
        click.echo("`claude --version` gave no version: Claude Code 2.1.157 or later loads this folder.")
    elif reply.changed_settings:
        click.echo(f"Changed:   {reply.settings}")
    if reply.old_hooks and reply.replaced_old:
        click.echo(f"Removed {len(reply.old_hooks)} hooks of the old tool from {reply.settings}.")
    elif reply.old_hooks:
        click.echo(f"{reply.settings} runs {reply.old_hooks[0]!r}: `membridge install hooks --replace-old` removes it.")
    click.echo("The next session that starts uses them.")


def _print_removed(reply: RemovedReply) -> None:
    click.echo(f"Removed: {reply.plugin}" if reply.removed else f"There were no hooks in {reply.plugin}")
    if reply.foreign:
        click.echo(f"Left there, because Membridge did not write it: {', '.join(reply.foreign)}")
    if reply.backup:
        click.echo(f"Your settings changed since. With the hooks of the old tool they are in {reply.backup}")
